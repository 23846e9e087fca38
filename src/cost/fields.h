/// \file
/// The fields of a stage's cost by the keys of the JSON form: one table for reading, writing and checking.
#pragma once

#include <array>
#include <cstdint>
#include <fmt/format.h>
#include <string>

#include "penstock/base/error.h"
#include "penstock/cost/cost.h"

namespace penstock {

inline constexpr Milliseconds largest_duration = {1e12};  // thirty years
inline constexpr std::int64_t longest_cost_file = std::int64_t{32} << 20;

[[nodiscard]] inline bool is_share(double value) { return value >= 0 && value <= largest_weight_activation_share; }

inline void require_size(const std::string& path, std::int64_t value) {
  if (value < 0)
    throw bad_input(fmt::format("{} is {}", path, value), "a number of bytes, at least 0", "correct the cost");
}

inline void require_contention(const std::string& path, double value) {
  if (!(value >= 1) || value > largest_contention)
    throw bad_input(fmt::format("{} is {}", path, value), fmt::format("a number from 1 to {}", largest_contention),
                    "correct the cost, or leave it out where ranks take nothing from each other");
}

struct DurationField {
  const char* key;
  Milliseconds StageCost::* member;
  bool optional = false;  // and then written only if above 0
};

struct SizeField {
  const char* key;
  Bytes StageCost::* member;
  bool written_only_if_above_0 = false;
};

inline constexpr std::array<DurationField, 4> duration_fields = {{
    {"forward_ms", &StageCost::forward},
    {"input_backward_ms", &StageCost::input_backward},
    {"weight_backward_ms", &StageCost::weight_backward},
    {"update_ms", &StageCost::update, true},
}};

inline constexpr std::array<SizeField, 11> size_fields = {{
    {"activation_bytes", &StageCost::activation},
    {"boundary_bytes", &StageCost::boundary},
    {"parameter_bytes", &StageCost::parameter},
    {"gradient_bytes", &StageCost::gradient},
    {"optimizer_bytes", &StageCost::optimizer},
    {"forward_workspace_bytes", &StageCost::forward_workspace, true},
    {"backward_workspace_bytes", &StageCost::backward_workspace, true},
    {"input_workspace_bytes", &StageCost::input_workspace, true},
    {"weight_workspace_bytes", &StageCost::weight_workspace, true},
    {"gradient_at_peak_bytes", &StageCost::gradient_at_peak, true},
    {"kept_gradient_bytes", &StageCost::kept_gradients, true},
}};

}  // namespace penstock
