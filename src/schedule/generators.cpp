#include "penstock/schedule/generators.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "penstock/base/error.h"

#include "schedule/generator_base.h"

namespace penstock {
namespace {

struct Generator {
  std::string_view name;
  Schedule (*make)(int ranks, int microbatches);
};

constexpr std::array generators{
    Generator{"naive", naive_schedule},
    Generator{"gpipe", gpipe_schedule},
    Generator{"1f1b", one_f_one_b_schedule},
};

Schedule empty_schedule(int ranks, int microbatches, Placement placement) {
  Schedule schedule;
  schedule.stages = static_cast<int>(placement.holders.size());
  schedule.microbatches = microbatches;
  schedule.placement = std::move(placement);
  schedule.actions.resize(static_cast<std::size_t>(ranks));
  return schedule;
}

void check_sizes(int ranks, int stages_per_rank, int microbatches) {
  // The distance to the largest int keeps ranks × stages per rank, and ids in between, from overflowing.
  constexpr int largest = 30'000;
  if (ranks < 1 || microbatches < 1 || stages_per_rank < 1)
    throw bad_input(fmt::format("a schedule of {} ranks with {} stages each and {} microbatches", ranks,
                                stages_per_rank, microbatches),
                    "at least 1 of each", "raise the smallest number");
  if (ranks > largest || stages_per_rank > largest)
    throw bad_input(fmt::format("a schedule of {} ranks with {} stages each", ranks, stages_per_rank),
                    fmt::format("at most {} of each", largest), "lower the larger number");
}

}  // namespace

Schedule empty_loop_schedule(int ranks, int stages_per_rank, int microbatches) {
  check_sizes(ranks, stages_per_rank, microbatches);
  return empty_schedule(ranks, microbatches, loop_placement(ranks, ranks * stages_per_rank));
}

Schedule empty_v_schedule(int ranks, int microbatches) {
  check_sizes(ranks, 2, microbatches);
  return empty_schedule(ranks, microbatches, v_placement(ranks));
}

Schedule make_schedule(std::string_view name, int ranks, int microbatches) {
  const auto* const found =
      std::find_if(generators.begin(), generators.end(), [name](const Generator& g) { return g.name == name; });
  if (found == generators.end()) {
    std::vector<std::string_view> names;
    for (const Generator& generator : generators) names.push_back(generator.name);
    throw bad_input(fmt::format("there is no schedule '{}'", name), fmt::format("one of {}", fmt::join(names, ", ")),
                    "correct the name");
  }
  return found->make(ranks, microbatches);
}

}  // namespace penstock
