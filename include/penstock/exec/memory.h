/// \file
/// Memory is counted, not estimated: libtorch's own allocator reports every allocation on a rank's thread.
#pragma once

#include <memory>

#include "penstock/base/units.h"

namespace penstock {

/// Counts the bytes that its thread holds in CPU tensors, from the moment it is made. Create, use and destroy it on one
/// thread. What one rank allocates and another frees is handed over by `moved`, so that each byte counts on one rank.
/// The first meter of a process sets an allocator of libtorch's host tensors that knows their sizes (decision 22): set
/// one of your own before it and it is replaced, after it and nothing is counted or limited any more.
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
  /// From now on an allocation, or a message taken over, that would bring more than `limit` throws, as on a device that
  /// is full. \param limit 0: none.
  void set_limit(Bytes limit);
  /// Takes over bytes from another rank (positive) or hands them over (negative). \throws Error (RunFailed) beyond the
  /// limit.
  void moved(Bytes bytes);

 private:
  struct Counter;
  struct Guard;
  std::shared_ptr<Counter> counter_;
  std::unique_ptr<Guard> guard_;
};

/// Tells the C library to keep what is freed instead of giving it back to the system, which would clear it anew for
/// the next microbatch: a training step asks for the same sizes again and again. For programs to call first; holds for
/// the whole process. Does nothing where the C library has no such setting, or where the program is linked with another
/// allocator, as `penstock` itself is with tcmalloc, which makes a step of a small network 4 to 8 % shorter.
void keep_freed_memory();

}  // namespace penstock
