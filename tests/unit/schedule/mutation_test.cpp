#include <algorithm>
#include <gtest/gtest.h>
#include <optional>
#include <random>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"

#include "drawn_cases.h"

namespace penstock {
namespace {

using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t size) { return random() % size; }

// True where `later` cannot be done before `earlier` on one rank.
bool needs(const Action& later, const Action& earlier) {
  using enum ActionKind;
  const auto is = [&](ActionKind a, ActionKind b) { return later.kind == a && earlier.kind == b; };
  const auto backward = [](ActionKind kind) { return kind == Backward || kind == InputBackward; };
  if (later.stage != earlier.stage) return false;
  if (later.microbatch != earlier.microbatch) {
    const auto weight = [](ActionKind kind) { return kind == Backward || kind == WeightBackward; };
    return weight(later.kind) && weight(earlier.kind) && earlier.microbatch < later.microbatch;
  }
  return (earlier.kind == Forward && backward(later.kind)) || is(WeightBackward, InputBackward) ||
         is(Forward, ReceiveForward) || is(SendForward, Forward) ||
         (earlier.kind == ReceiveBackward && backward(later.kind)) ||
         (backward(earlier.kind) && later.kind == SendBackward);
}

bool swap_across_a_dependency(Schedule& schedule, Random& random) {
  auto& row = schedule.actions[below(random, schedule.actions.size())];
  const std::size_t later = below(random, row.size());
  const std::size_t start = below(random, later + 1);
  for (std::size_t i = 0; i < later; ++i) {
    const std::size_t earlier = (start + i) % later;
    if (!needs(row[later], row[earlier])) continue;
    std::swap(row[later], row[earlier]);
    return true;
  }
  return false;
}

bool mutate(Schedule& schedule, Random& random, std::size_t how) {
  if (how == 0) return swap_across_a_dependency(schedule, random);
  auto& row = schedule.actions[below(random, schedule.actions.size())];
  const std::size_t position = below(random, row.size());
  const Action action = row[position];
  if (how != 1) row.erase(row.begin() + static_cast<std::ptrdiff_t>(position));
  if (how == 2) return true;
  auto& target = schedule.actions[below(random, schedule.actions.size())];
  if (how == 3 && &target == &row) return false;
  target.insert(target.begin() + static_cast<std::ptrdiff_t>(below(random, target.size() + 1)), action);
  return true;
}

// In a file the placement follows from the actions, so that what was moved could seem to be at home. What shows nothing
// but forwards is a correct forward-only schedule, and nobody can tell that it was meant otherwise.
bool is_refused_in_a_file(const Schedule& mutant) {
  try {
    const Schedule read = parse_schedule(to_csv(mutant));
    if (!read.forward_only) static_cast<void>(verify(read));
    return read.forward_only;
  } catch (const Error&) {
    return true;
  }
}

TEST(Mutation, EveryMutationOfAValidScheduleIsRefused) {
  constexpr std::uint64_t seed = 20'260'401;
  constexpr int wanted = drawn_cases(100'000);
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  RecordProperty("seed", std::to_string(seed));
  Random random(seed);
  const auto families = schedule_families();
  int done = 0;
  while (done < wanted) {
    const ScheduleFamily& family = families[below(random, families.size())];
    const int ranks = family.ranks_multiple * (1 + static_cast<int>(below(random, 3)));
    const int microbatches = 1 + static_cast<int>(below(random, 9));
    VerifiedSchedule valid = verify(make_schedule(family.name, ranks, microbatches));
    if (below(random, 2) == 0) valid = lower(valid);
    for (int i = 0; i < 200; ++i) {
      Schedule mutant = valid.get();
      const std::size_t how = below(random, 4);
      if (!mutate(mutant, random, how)) continue;
      ++done;
      EXPECT_ANY_THROW(static_cast<void>(verify(mutant)))
          << "mutation " << how << " of " << family.name << " goes unnoticed:\n"
          << to_csv(valid.get()) << "became\n"
          << to_csv(mutant);
      EXPECT_TRUE(is_refused_in_a_file(mutant)) << "mutation " << how << " of " << family.name << " goes unnoticed:\n"
                                                << to_csv(valid.get()) << "became\n"
                                                << to_csv(mutant);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace penstock
