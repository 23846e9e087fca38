// One check for all networks: sizes are whole numbers from 1, and what must divide divides.
#pragma once

#include <cstdint>

namespace penstock {

// Throws Error (BadInput) that names the setting.
void require_positive(const char* setting, std::int64_t value);
void require_divides(const char* divisor, std::int64_t value, const char* dividend, std::int64_t of);

}  // namespace penstock
