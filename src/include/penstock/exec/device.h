/// \file
/// What orders the work of ranks on devices that are not the host: streams and events, through libtorch's generic
/// classes, so that no file knows CUDA. On the host all of it is nothing.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "penstock/base/types.h"
#include "penstock/timeline/timeline.h"
#include "penstock/transport/transport.h"

namespace penstock {

/// A rank's two streams on its device: one computes, the other copies what arrives from other devices. What one needs
/// of the other waits for an event on the device, so that the host runs ahead. Belongs to the rank's thread.
class DeviceLane {
 public:
  /// \param device the host: there are no streams. Takes two streams of the device's pool otherwise.
  explicit DeviceLane(at::Device device);

  [[nodiscard]] at::Device device() const { return device_; }
  [[nodiscard]] bool on_host() const { return !compute_; }

  /// From now on the calling thread computes on the compute stream, after what `before` stands for.
  void enter(const std::vector<c10::Event>& before);
  /// What has been enqueued for computing so far. \pre not on the host
  [[nodiscard]] c10::Event mark() const;
  /// What another rank has made when `ready` has come, for computing here: on this device as it is, copied on the copy
  /// stream from another. Host tensors stay where they are, and a lane of the host waits.
  [[nodiscard]] std::vector<at::Tensor> bring(std::vector<at::Tensor> tensors, const c10::Event& ready);
  /// The host waits until both streams are done.
  void wait() const;

 private:
  [[nodiscard]] at::Tensor copied(const at::Tensor& tensor, const c10::Event& ready);

  at::Device device_;
  std::optional<c10::Stream> compute_;
  std::optional<c10::Stream> copies_;
  std::map<c10::DeviceIndex, c10::Stream> sources_;  // of other devices, where copies from them are started
};

/// The ends of a transport between threads, by rank, such that every message waits on the receiver's device for what
/// its sender has enqueued. The ends themselves where all lanes are on the host. \param lanes by rank, null for
/// those of other processes, whose messages come through the host; must outlive the ends.
[[nodiscard]] std::vector<std::unique_ptr<Transport>> ordered_by_events(std::vector<std::unique_ptr<Transport>> ends,
                                                                        const std::vector<DeviceLane*>& lanes);

/// What the caller's thread has enqueued on its current streams of `devices`: an event for each that is not the host.
[[nodiscard]] std::vector<c10::Event> marks_of_caller(const std::vector<at::Device>& devices);

/// Times as a device sees them, of one program after the other. On the host those of the clock at once; on a device
/// they are events on the thread's current stream, and become times in `resolve`.
class Stamps {
 public:
  /// \param clock must outlive the stamps.
  Stamps(at::Device device, const Clock& clock) : device_(device), clock_(clock) {}

  /// Finds where the device's time stands on the clock, and waits for the device to do so. Called by `begin` the first
  /// time; again from time to time, as the two drift apart.
  void align();
  /// Forgets the stamps of the program before.
  void begin();
  [[nodiscard]] Milliseconds now() { return device_.is_cpu() ? clock_.now() : stamp(); }
  /// Makes times of the stamps in `events`. Waits for the device only if it has not come as far as the last one.
  void resolve(std::vector<Event>& events);

 private:
  Milliseconds stamp();

  at::Device device_;
  const Clock& clock_;
  std::optional<c10::Event> anchor_;  // an event
  Milliseconds anchored_;             // and its time
  std::vector<c10::Event> on_device_;
};

/// Makes libtorch compute with algorithms that give the same bits every time. Without this some algorithms of a device
/// add up in the order in which its threads end, among them the backward of attention in bf16 and of convolutions. It
/// holds for the whole process; call it before the process uses a device, as the command line does if `--devices` names
/// one. An operation that has no such algorithm then throws and names itself. The host's algorithms are all of this
/// kind.
void choose_repeatable_algorithms();

/// How much memory a device's caching allocator has given to all ranks together that share the device.
struct DeviceMemory {
  Bytes held;
  Bytes peak;  ///< since `reset_device_peak`

  friend bool operator==(const DeviceMemory&, const DeviceMemory&) = default;
};

/// None for the host, whose memory a `MemoryMeter` counts, and for a device without such an allocator.
[[nodiscard]] std::optional<DeviceMemory> device_memory(at::Device device);
/// Does nothing where there is no `device_memory`.
void reset_device_peak(at::Device device);

}  // namespace penstock
