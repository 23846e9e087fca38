#include "nn/size_check.h"

#include <fmt/format.h>

#include "penstock/base/error.h"

namespace penstock {

void require_positive(const char* setting, std::int64_t value) {
  if (value < 1)
    throw bad_input(fmt::format("{} is {}", setting, value), "at least 1", fmt::format("raise {}", setting));
}

void require_divides(const char* divisor, std::int64_t value, const char* dividend, std::int64_t of) {
  require_positive(divisor, value);
  if (of % value != 0)
    throw bad_input(fmt::format("{} {} does not divide {} {}", divisor, value, dividend, of),
                    fmt::format("a {} that {} divides", dividend, divisor),
                    fmt::format("choose {} = {} or {} = {}", dividend, of + value - of % value, divisor, 1));
}

}  // namespace penstock
