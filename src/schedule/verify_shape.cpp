#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>

#include "penstock/base/index.h"

#include "schedule/verify_passes.h"

namespace penstock {
namespace {

void check_sizes(const Schedule& schedule) {
  if (schedule.stages < 1 || schedule.microbatches < 1 || schedule.ranks() < 1)
    throw bad_input(fmt::format("a schedule of {}, {} and {}", counted(schedule.stages, "stage"),
                                counted(schedule.microbatches, "microbatch"), counted(schedule.ranks(), "rank")),
                    "at least 1 of each", "raise what is 0");
  const auto& holders = schedule.placement.holders;
  if (holders.size() != as_size(schedule.stages))
    throw bad_input(
        fmt::format("a placement of {} for a schedule of {}", counted(std::ssize(holders), "stage"), schedule.stages),
        "one entry for each stage", "build the placement for this schedule");
  for (std::size_t stage = 0; stage < holders.size(); ++stage) {
    const auto& ranks = holders[stage];
    if (ranks.empty())
      throw bad_input(fmt::format("stage {} is held by no rank", stage), "at least one rank",
                      fmt::format("give its actions to a rank, or number the stages from 0 without gaps"));
    if (ranks.front().value < 0 || ranks.back().value >= schedule.ranks() ||
        !std::is_sorted(ranks.begin(), ranks.end(), std::less_equal<>()))
      throw bad_input(fmt::format("stage {} is held by ranks {} … {}", stage, ranks.front().value, ranks.back().value),
                      fmt::format("ascending ranks from 0 to {}", schedule.ranks() - 1), "correct the placement");
  }
}

void check_ids(const Schedule& schedule, Place place) {
  const Action& action = at(schedule, place);
  const bool has_stage = action.kind != ActionKind::Idle;
  const bool has_microbatch = has_stage && !is_stage_marker(action.kind);
  const auto in_range = [](bool has, std::int32_t value, int count) {
    return has ? value >= 0 && value < count : value == -1;
  };
  if (!in_range(has_stage, action.stage.value, schedule.stages) ||
      !in_range(has_microbatch, action.microbatch.value, schedule.microbatches))
    throw refusal(
        schedule, place, "is of a stage or a microbatch that the schedule does not have",
        fmt::format("stages 0 to {} and microbatches 0 to {}", schedule.stages - 1, schedule.microbatches - 1),
        "correct the number");
  if (!has_stage) return;
  const auto& holders = entry(schedule.placement.holders, action.stage);
  if (std::find(holders.begin(), holders.end(), RankId{place.rank}) == holders.end())
    throw refusal(schedule, place, fmt::format("is on a rank that does not hold stage {}", action.stage.value),
                  holders.size() == 1 ? fmt::format("it on rank {}", holders[0].value)
                                      : fmt::format("it on rank {} or {}", holders.front().value, holders.back().value),
                  "move it there");
}

void check_overlap(const Schedule& schedule, Place place) {
  const auto& row = entry(schedule.actions, place.rank);
  const auto second = as_index(place.position) + 1;
  const auto is_backward = [](ActionKind kind) {
    return kind == ActionKind::Backward || kind == ActionKind::InputBackward;
  };
  const Action& action = at(schedule, place);
  const bool paired = second < row.size() && !row[second].overlaps_next &&
                      ((action.kind == ActionKind::Forward && is_backward(row[second].kind)) ||
                       (is_backward(action.kind) && row[second].kind == ActionKind::Forward));
  if (!paired)
    throw refusal(schedule, place, "is to overlap with what is not its counterpart",
                  "a pair of one F and one B or I, such as (0F1;1B2)OVERLAP_F_B", "take the overlap apart");
}

}  // namespace

void check_shape(const Schedule& schedule) {
  check_sizes(schedule);
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank) {
    const auto& row = entry(schedule.actions, rank);
    bool works = false;
    for (std::int32_t position = 0; position < static_cast<std::int32_t>(row.size()); ++position) {
      const Place place{rank, position};
      check_ids(schedule, place);
      if (at(schedule, place).overlaps_next) check_overlap(schedule, place);
      works = works || is_compute(at(schedule, place).kind);
    }
    if (!works)
      throw bad_input(fmt::format("rank {} has nothing to compute", rank), "at least one stage on every rank",
                      "delete its row or give it a stage");
  }
}

}  // namespace penstock
