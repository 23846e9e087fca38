// The way of tensors from device to device, beside the frames that announce them. It carries no frames, and so is no
// channel: a frame says what comes, and both ends then enqueue it.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"
#include "penstock/wire/frame.h"

namespace penstock {

// What a device is to receive.
struct ExpectedTensors {
  std::vector<at::Tensor> tensors;  // one for each layout on a device
  // To be called on the thread that uses them: its current stream then waits for their bytes, or, on the host, the
  // thread does. False if they do not come.
  std::function<bool()> wait;
};

class DevicePath {
 public:
  DevicePath() = default;
  DevicePath(const DevicePath&) = delete;
  DevicePath& operator=(const DevicePath&) = delete;
  DevicePath(DevicePath&&) = delete;
  DevicePath& operator=(DevicePath&&) = delete;
  virtual ~DevicePath() = default;

  // This end's device if tensors on it go directly from rank to rank; none if they go through the host.
  [[nodiscard]] virtual std::optional<at::Device> device_between(RankId from, RankId to) const = 0;
  // Enqueues dense tensors on that device, on the sending rank's thread. \throws Error (RunFailed)
  virtual void send(RankId from, RankId to, const std::vector<at::Tensor>& tensors) = 0;
  // Enqueues receives for the layouts that are on a device. \throws Error (RunFailed)
  [[nodiscard]] virtual ExpectedTensors receive(RankId from, RankId to, const Layouts& layouts) = 0;
};

}  // namespace penstock
