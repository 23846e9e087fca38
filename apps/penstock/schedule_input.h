// What the commands on schedules read: a schedule by name or file, and what its stages and links cost.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"

namespace penstock::app {

struct ScheduleInput {
  std::string source;  // a generator's name or a file
  std::optional<int> ranks;
  std::optional<int> microbatches;
  std::optional<int> stages_per_rank;
};

struct CostInput {
  std::string file;  // empty: all stages and links alike
  std::optional<double> forward_ms;
  std::optional<double> input_backward_ms;
  std::optional<double> weight_backward_ms;
  std::optional<double> link_ms;
  std::optional<double> weight_activation_share;
};

void add_schedule_options(CLI::App& command, ScheduleInput& input);
void add_cost_options(CLI::App& command, CostInput& input);

// How a schedule is verified that is only drawn or simulated: other engines add gradients up in orders that penstock
// does not run.
constexpr VerifyOptions to_look_at{SendMode::NonBlocking, std::nullopt, Accumulation::AnyOrder};

// Not verified. Throws Error (BadInput) where it is neither a name nor a schedule, or of other sizes than asked for.
[[nodiscard]] Schedule read_schedule(const ScheduleInput& input);

// For a schedule of so many stages. Without any option every time is one unit: 1 ms.
[[nodiscard]] Cost read_cost(const CostInput& input, int stages);
// What the answer then says of its times.
inline constexpr const char* unit_cost_text =
    "no costs were given: each F, I and W takes 1 ms on every stage, and a B, which is both I and W, 2 ms";
// True where no option names a cost: times then are units.
[[nodiscard]] bool is_unit_cost(const CostInput& input);

}  // namespace penstock::app
