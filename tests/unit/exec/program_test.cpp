#include <gtest/gtest.h>

#include "penstock/exec/rank.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

// The actions behind which a stage's gradients are final, as text.
std::string finals_of(const Schedule& schedule, RankId rank) {
  std::string finals;
  for (const Instruction& instruction : compile(lower(verify(schedule)), rank).instructions)
    if (instruction.last_of_gradients) finals += to_string(instruction.action) + ' ';
  return finals;
}

TEST(Program, SaysWhereTheGradientsOfEachStageAreFinal) {
  EXPECT_EQ(finals_of(one_f_one_b_schedule(2, 3), {0}), "0B2 ");
  EXPECT_EQ(finals_of(make_schedule("interleaved-1f1b", 2, 4), {0}), "2B3 0B3 ");
  // Of a split backward it is the weights' half.
  EXPECT_EQ(finals_of(make_schedule("zb-h1", 2, 4), {1}), "1W3 ");
  // Each replica has its own last microbatch.
  const Schedule both = side_by_side({one_f_one_b_schedule(2, 2), one_f_one_b_schedule(2, 3)});
  EXPECT_EQ(finals_of(both, {1}), "1B1 ");
  EXPECT_EQ(finals_of(both, {3}), "1B4 ");
}

}  // namespace
}  // namespace penstock
