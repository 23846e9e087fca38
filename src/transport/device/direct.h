// Tensors that go from device to device beside the frames, through a process group of two members for each pair of
// ranks that has something to send.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "penstock/base/types.h"
#include "penstock/wire/frame.h"

#include "transport/link/device_path.h"

namespace penstock {

// What brings the bytes: NCCL, or in the tests what stands in for it.
struct DirectBackend {
  // Tells a device from every other one of every machine; empty where this backend does not reach it.
  std::function<std::string(at::Device)> identity_of;
  // A group of two: member 0 sends, member 1 receives. May wait for the other.
  std::function<c10::intrusive_ptr<c10d::Backend>(const c10::intrusive_ptr<c10d::Store>& store, int member)> make;
};

// Whether this build of libtorch has NCCL.
[[nodiscard]] bool has_nccl();
// Reaches nothing where it has not.
[[nodiscard]] DirectBackend nccl();

// From one rank to one of another process. The sender's thread sends and the link's thread receives, in the order of
// the frames that announce.
class DirectChannel {
 public:
  // `device` is this end's. \throws Error (RunFailed) where the two cannot reach each other.
  DirectChannel(const DirectBackend& backend, const c10::intrusive_ptr<c10d::Store>& store, int member,
                at::Device device);
  DirectChannel(const DirectChannel&) = delete;
  DirectChannel& operator=(const DirectChannel&) = delete;
  DirectChannel(DirectChannel&&) = delete;
  DirectChannel& operator=(DirectChannel&&) = delete;
  ~DirectChannel();

  // Enqueues them, behind what the thread's current stream has been given, and keeps them until they have gone. They
  // are dense, on this end's device, and go in the order of their memory. The first waits until the other has heard of
  // it. \throws Error (RunFailed)
  void send(const std::vector<at::Tensor>& tensors);

  // Enqueues receives into new tensors for the layouts that are on a device. Their wait says false after an abort.
  // \throws Error (RunFailed)
  [[nodiscard]] ExpectedTensors receive(const Layouts& layouts);

  // Ends every wait, of the host and of the device. From any thread.
  void abort();

 private:
  struct Sending {
    c10::intrusive_ptr<c10d::Work> work;
    at::Tensor tensor;
  };
  void let_go_of_sent();

  c10::intrusive_ptr<c10d::Backend> group_;
  at::Device device_;
  std::optional<c10::Stream> stream_;  // on which receives are enqueued; none on the host
  std::deque<Sending> sending_;        // the sender's thread's
  std::mutex mutex_;
  std::vector<c10::intrusive_ptr<c10d::Work>> receiving_;  // not yet waited for
  bool aborted_ = false;
};

// The channels of a process: each is made when the first message needs it, which both ends learn from its frame.
class DirectChannels final : public DevicePath {
 public:
  // Connects to the run's store once more. What one thread asks of a connection waits for what another has asked, so
  // that every channel needs its own while it is made.
  using OpenStore = std::function<c10::intrusive_ptr<c10d::Store>()>;

  // `identities` by rank of all processes, as `backend.identity_of` says; `devices` of this one's ranks, of which the
  // first is `first`.
  DirectChannels(DirectBackend backend, OpenStore open_store, std::vector<std::string> identities,
                 std::vector<at::Device> devices, RankId first);

  // Whether any of this process's ranks reaches any of the ranks from `begin` to `end`.
  [[nodiscard]] bool reaches_any(RankId begin, RankId end) const;
  [[nodiscard]] std::optional<at::Device> device_between(RankId from, RankId to) const override;
  void send(RankId from, RankId to, const std::vector<at::Tensor>& tensors) override;
  [[nodiscard]] ExpectedTensors receive(RankId from, RankId to, const Layouts& layouts) override;
  // Ends every wait of every channel, and of those that are being made.
  void abort();

 private:
  // \pre there is a device between them. \throws Error (RunFailed)
  [[nodiscard]] DirectChannel& channel(RankId from, RankId to);
  [[nodiscard]] bool is_own(RankId rank) const;
  [[nodiscard]] std::unique_ptr<DirectChannel> make(RankId from, RankId to);
  // Waits until the other end is there too. \throws Error (RunFailed) after an abort
  void meet(c10d::Store& store, int member);

  DirectBackend backend_;
  OpenStore open_store_;
  std::vector<std::string> identities_;
  std::vector<at::Device> devices_;
  RankId first_;
  std::mutex mutex_;
  std::map<std::pair<RankId, RankId>, std::unique_ptr<DirectChannel>> channels_;
  std::atomic<bool> aborted_ = false;
};

}  // namespace penstock
