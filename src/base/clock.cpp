#include <chrono>

#include "penstock/base/types.h"

namespace penstock {

Milliseconds SteadyClock::now() const {
  return {std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count()};
}

}  // namespace penstock
