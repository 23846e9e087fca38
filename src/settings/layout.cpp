#include <filesystem>
#include <fmt/format.h>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/settings.h"

namespace penstock {
namespace {

// A schedule without a backward passes the verifier, and would leave the weights as they are.
Error trains_nothing() {
  return bad_input("a schedule without backward passes", "one that trains", "take another schedule, such as 1f1b");
}

/// How many ranks of one replica a schedule with a name has.
int ranks_of_family(const Layout& layout, const ScheduleFamily& family) {
  if (layout.stages % family.stages_per_rank != 0)
    throw bad_input(fmt::format("{} with `stages` = {}", family.name, layout.stages),
                    fmt::format("a multiple of {}, the stages that it gives to each rank", family.stages_per_rank),
                    "change `stages`, or take another schedule");
  return layout.stages / family.stages_per_rank;
}

void check_named_schedule(const Layout& layout, int microbatches) {
  const ScheduleFamily& family = schedule_family(layout.schedule.text());
  check_generated(family.name, ranks_of_family(layout, family), microbatches);
  if (family.forward_only) throw trains_nothing();
}

VerifiedSchedule verify_for_training(Schedule schedule) {
  VerifiedSchedule verified = verify(std::move(schedule));
  if (verified->forward_only) throw trains_nothing();
  return verified;
}

Schedule read_schedule_file(const Layout& layout, int microbatches) {
  Schedule schedule = parse_schedule(read_file(layout.schedule.text()));
  if (schedule.stages != layout.stages || schedule.microbatches != microbatches)
    throw bad_input(fmt::format("it has {} stages and {} microbatches", schedule.stages, schedule.microbatches),
                    fmt::format("`stages` = {} and {}", layout.stages,
                                layout.replicas == 1 ? fmt::format("`microbatches` is {}", microbatches)
                                                     : fmt::format("{} of the {} microbatches for a replica",
                                                                   microbatches, layout.microbatches.count())),
                    "give the schedule's own numbers");
  return schedule;
}

VerifiedSchedule schedule_from_file(const Layout& layout, int microbatches) {
  try {
    return verify_for_training(read_schedule_file(layout, microbatches));
  } catch (const Error& error) {
    // The verifier knows ranks and positions, but not whose.
    const std::string reason = error.what();
    if (reason.find(layout.schedule.text()) != std::string::npos) throw;
    throw Error(error.kind(), fmt::format("{}: {}", layout.schedule.text(), reason));
  }
}

VerifiedSchedule schedule_of_replica(const Layout& layout, int microbatches) {
  if (layout.schedule.kind() == ScheduleChoice::File) return schedule_from_file(layout, microbatches);
  const ScheduleFamily& family = schedule_family(layout.schedule.text());
  return verify_for_training(make_schedule(family.name, ranks_of_family(layout, family), microbatches));
}

/// Calls `visit(microbatches)` for each replica, and says of what it throws which replica it is about.
template <class Visit>
void for_each_replica(const Layout& layout, const Visit& visit) {
  const int microbatches = layout.microbatches.count();
  if (layout.replicas == 1) return visit(microbatches);
  for (int replica = 0; replica < layout.replicas; ++replica) {
    const int share = microbatches_of_replica(microbatches, layout.replicas, replica);
    try {
      visit(share);
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("replica {} of {}, with {}: {}", replica, layout.replicas,
                                            counted(share, "microbatch"), error.what()));
    }
  }
}

}  // namespace

std::filesystem::path schedule_file_of_plan(const std::filesystem::path& plan_file,
                                            const std::filesystem::path& schedule) {
  const std::filesystem::path folder = plan_file.parent_path();
  for (const std::filesystem::path& path : {folder / schedule, schedule, folder / schedule.filename()}) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored)) return path;
  }
  return folder / schedule;
}

bool is_automatic(const Layout& layout) {
  return layout.schedule.is_automatic() || layout.cut.is_automatic() || layout.recompute.is_automatic() ||
         layout.microbatches.is_automatic() || layout.ranks.is_automatic();
}

VerifiedSchedule schedule_of(const Layout& layout) {
  if (layout.replicas == 1) return schedule_of_replica(layout, layout.microbatches.count());
  std::vector<Schedule> replicas;
  for_each_replica(layout,
                   [&](int microbatches) { replicas.push_back(schedule_of_replica(layout, microbatches).get()); });
  return verify(side_by_side(replicas));
}

void check_schedule(const Layout& layout) {
  if (layout.schedule.kind() == ScheduleChoice::File)
    static_cast<void>(schedule_of(layout));
  else
    for_each_replica(layout, [&](int microbatches) { check_named_schedule(layout, microbatches); });
}

int ranks_of(const Layout& layout) {
  const std::string& schedule = layout.schedule.text();
  const int ranks = layout.schedule.kind() == ScheduleChoice::File ? parse_schedule(read_file(schedule)).ranks()
                                                                   : ranks_of_family(layout, schedule_family(schedule));
  return ranks * layout.replicas;
}

Layout layout_on_fewer(const Layout& layout, int processes_before, int processes) {
  const int ranks = ranks_of(layout);
  const int stages_per_rank = layout.stages * layout.replicas / ranks;
  const int most = std::max(ranks * processes / processes_before, processes);
  Layout fewer = layout;
  fewer.ranks = Ranks();
  if (layout.cut.kind() == CutChoice::Explicit) fewer.cut = CutChoice::Uniform;
  // Some schedules want an even number of ranks.
  for (fewer.replicas = layout.replicas; fewer.replicas >= 1; --fewer.replicas) {
    if (!allows_gradient_tree(layout.gradient_tree, fewer.replicas, layout.microbatches.count())) continue;
    // A single replica keeps all of the optimizer's state.
    if (fewer.replicas == 1 && layout.replicas > 1) fewer.zero = 0;
    for (int wanted = most; wanted >= processes; --wanted) {
      if (wanted % fewer.replicas != 0) continue;
      fewer.stages = wanted / fewer.replicas * stages_per_rank;
      try {
        check_schedule(fewer);
        return fewer;
      } catch (const Error&) {
        continue;
      }
    }
  }
  throw bad_input(fmt::format("no {} on {} ranks of {}", layout.schedule.text(), processes,
                              counted(layout.microbatches.count(), "microbatch")),
                  "a schedule for the processes that are left", "choose another `schedule` for an `elastic` run");
}

}  // namespace penstock
