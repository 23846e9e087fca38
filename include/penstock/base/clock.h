/// \file
/// The clock as an interface, so that tests and the simulator can set the time themselves.
#pragma once

#include "penstock/base/units.h"

namespace penstock {

/// Milliseconds since an arbitrary fixed point, never running backwards. Thread-safe.
class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  Clock(Clock&&) = delete;
  Clock& operator=(Clock&&) = delete;
  virtual ~Clock() = default;

  [[nodiscard]] virtual Milliseconds now() const = 0;
};

/// The machine's monotonic clock.
class SteadyClock final : public Clock {
 public:
  [[nodiscard]] Milliseconds now() const override;
};

}  // namespace penstock
