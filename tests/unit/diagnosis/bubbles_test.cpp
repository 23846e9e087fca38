#include "penstock/diagnosis/bubbles.h"

#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"

namespace penstock {
namespace {

double theory_of(const std::string& schedule, int stages, int microbatches) {
  BubbleSettings settings;
  settings.stages = stages;
  settings.microbatches = {microbatches};
  settings.schedules = {schedule};
  settings.forward_ms = settings.backward_ms = 1;
  settings.steps = 1;
  const auto rows = measure_bubbles(settings);
  EXPECT_EQ(rows.size(), 1U);
  EXPECT_GT(rows.front().measured, 0);
  EXPECT_LE(rows.front().measured, 1);
  return rows.front().theory;
}

TEST(Bubbles, TheoryIsThePublishedFormula) {
  EXPECT_NEAR(theory_of("naive", 3, 4), 1.0 / 3, 1e-9);
  EXPECT_NEAR(theory_of("gpipe", 3, 4), 4.0 / 6, 1e-9);
  EXPECT_NEAR(theory_of("1f1b", 3, 4), 4.0 / 6, 1e-9);
  EXPECT_NEAR(theory_of("interleaved-1f1b", 2, 4), 8.0 / 9, 1e-9);
}

TEST(Bubbles, EveryScheduleThatTrainsCanBeMeasured) {
  for (const ScheduleFamily& family : schedule_families())
    if (family.name != "forward-only") {
      EXPECT_GT(theory_of(std::string(family.name), 2, 3), 0.2) << family.name;
    }
}

TEST(Bubbles, RefusesWhatCannotBeMeasured) {
  EXPECT_THROW(static_cast<void>(theory_of("forward-only", 2, 2)), Error);
  EXPECT_THROW(static_cast<void>(theory_of("dualpipe", 3, 2)), Error);
  EXPECT_THROW(static_cast<void>(theory_of("no such", 3, 2)), Error);
}

}  // namespace
}  // namespace penstock
