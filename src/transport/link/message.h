// A message of tensors on its way into frames and out of them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"
#include "penstock/wire/frame.h"

#include "transport/link/device_path.h"

namespace penstock {

// A message, or a word between the sessions, of which some frames may have been written already.
struct Outgoing {
  Frame frame;
  Layouts layouts;
  std::vector<at::Tensor> tensors;    // as they go, on the CPU; undefined where they go from device to device
  std::vector<at::Tensor> originals;  // of those that had to be copied
  std::string reason;
  std::uint64_t sent = 0;

  // \pre its first frame has been written
  [[nodiscard]] bool has_more() const { return frame.with_layouts || sent < frame.message_bytes; }
};

// \param device where tensors on it go beside the frames; those are appended to `on_device`, as they go.
// \throws Error (BadInput) for what no message holds, or more than `largest` bytes.
[[nodiscard]] Outgoing outgoing_message(const FrameAddress& address, const std::vector<at::Tensor>& tensors,
                                        const std::optional<at::Device>& device, std::uint64_t largest,
                                        std::vector<at::Tensor>& on_device);

// Where one goes among those that wait: in front, it goes before all but the rest of a message that has begun.
enum class Place : std::uint8_t { Behind, InFront };
void enqueue(std::deque<Outgoing>& queue, Outgoing outgoing, Place place);

// Writes the frames of one channel.
class MessageWriter {
 public:
  explicit MessageWriter(std::uint64_t run_identity) : frames_(run_identity) {}

  // To be called in the order in which messages go: layouts go with those whose layouts the other does not know yet.
  void begin(Outgoing& outgoing);
  // Writes its next frame. Where the frame ends.
  [[nodiscard]] std::size_t write(Outgoing& outgoing, std::span<std::byte> into);

 private:
  FrameWriter frames_;
  LayoutMemory layouts_;
};

// A message that has come whole.
struct Arrived {
  FrameAddress address;
  std::vector<at::Tensor> tensors;
  std::function<bool()> wait;  // as that of `ExpectedTensors`; empty if all bytes are here
  Bytes on_device;             // that came, or come, beside the frames
};

// Puts the messages of one channel together.
class MessageAssembly {
 public:
  // \param devices null where no tensors go from device to device.
  explicit MessageAssembly(DevicePath* devices) : devices_(devices) {}

  // Takes a message's next frame. The message, if that was its last. \throws Error
  [[nodiscard]] std::optional<Arrived> add(const Incoming& incoming);

 private:
  void begin(const Incoming& incoming);
  [[nodiscard]] Arrived finished(const Layouts& layouts);

  DevicePath* devices_;
  FrameAddress address_;
  std::vector<at::Tensor> tensors_;
  ExpectedTensors expected_;
};

}  // namespace penstock
