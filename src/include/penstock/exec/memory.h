/// \file
/// Memory is counted, not estimated: libtorch's own allocator reports every allocation on a rank's thread.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"

namespace penstock {

struct ByteCounter;

/// Counts the bytes of the CPU tensors that its thread allocates, from the moment it is made until they are freed, on
/// whichever thread. Each storage counts once, with all that was allocated for it, and at one meter: `take_over` and
/// `hand_over` say at which. Create, use and destroy a meter on one thread.
/// The first meter of a process sets an allocator of libtorch's host tensors that knows their sizes (decision 22): an
/// allocator of your own that was set before is replaced, and with one that is set later nothing is counted or limited
/// any more.
class MemoryMeter {
 public:
  /// \param limit as `set_limit`.
  explicit MemoryMeter(Bytes limit = {});
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;
  MemoryMeter(MemoryMeter&&) = delete;
  MemoryMeter& operator=(MemoryMeter&&) = delete;
  ~MemoryMeter();

  [[nodiscard]] Bytes held() const;
  /// The most that was held since the meter was made or `reset_peak` was called.
  [[nodiscard]] Bytes peak() const;
  void reset_peak();
  /// From now on an allocation, or a tensor taken over, that would bring more than `limit` throws, as on a device that
  /// is full. \param limit 0: none.
  void set_limit(Bytes limit);
  /// From now on the memory of these tensors counts here: what another rank has sent. Tensors may be undefined, or on
  /// other devices, which have no part in it. Nobody else may use them meanwhile. \throws Error (RunFailed) beyond the
  /// limit; then what was not taken over counts nowhere.
  void take_over(const std::vector<at::Tensor>& tensors);
  /// From now on it counts nowhere: it is on its way to another rank, or belongs to the caller of the pipeline.
  static void hand_over(const std::vector<at::Tensor>& tensors);
  /// How much of what is held is the memory of these tensors.
  [[nodiscard]] Bytes held_in(const std::vector<at::Tensor>& tensors) const;

 private:
  struct Guard;
  std::unique_ptr<ByteCounter, void (*)(ByteCounter*)> counter_;
  std::unique_ptr<Guard> guard_;
};

/// While it lives, what its thread allocates counts nowhere, for as long as it is used: what ranks exchange, and
/// what the caller of a pipeline gets.
class UncountedMemory {
 public:
  UncountedMemory();
  UncountedMemory(const UncountedMemory&) = delete;
  UncountedMemory& operator=(const UncountedMemory&) = delete;
  UncountedMemory(UncountedMemory&&) = delete;
  UncountedMemory& operator=(UncountedMemory&&) = delete;
  ~UncountedMemory();

 private:
  struct Guard;
  std::unique_ptr<Guard> guard_;
};

/// Tells the C library to keep what is freed instead of giving it back to the system, which would clear it anew for
/// the next microbatch: a training step asks for the same sizes again and again. For programs to call first; holds for
/// the whole process. Does nothing where the C library has no such setting, or where the program is linked with another
/// allocator, as `penstock` itself is with tcmalloc, which makes a step of a small network 4 to 8 % shorter.
void keep_freed_memory();

}  // namespace penstock
