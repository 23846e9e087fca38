// What the ranks can do of a step before any of them does a backward pass.
#include <algorithm>
#include <gtest/gtest.h>
#include <set>
#include <utility>

#include "penstock/exec/rank.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"
#include "penstock/schedule/verify.h"

namespace penstock::lead_test {
namespace {

std::int64_t forwards_in(const Program& program, std::size_t instructions) {
  return std::count_if(program.instructions.begin(),
                       program.instructions.begin() + static_cast<std::ptrdiff_t>(instructions),
                       [](const Instruction& instruction) { return instruction.action.kind == ActionKind::Forward; });
}

TEST(Lead, OfOneForwardOneBackwardIsItsWarmUp) {
  const VerifiedSchedule lowered = lower(verify(make_schedule("1f1b", 4, 8)));
  const std::vector<Lead> leads = find_leads(lowered);
  ASSERT_EQ(leads.size(), 4);
  for (std::int32_t rank = 0; rank < 4; ++rank)
    EXPECT_EQ(forwards_in(compile(lowered, {rank}), leads[static_cast<std::size_t>(rank)].instructions), 4 - rank);
  // Rank 0 has sent four, of which rank 1 takes three, and so on.
  EXPECT_EQ(leads[0].unread.size(), 0);
  for (std::size_t rank = 1; rank < 4; ++rank) EXPECT_EQ(leads[rank].unread.size(), 1);
}

TEST(Lead, OfGPipeIsAllForwardPasses) {
  const VerifiedSchedule lowered = lower(verify(make_schedule("gpipe", 3, 5)));
  const std::vector<Lead> leads = find_leads(lowered);
  for (std::int32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(forwards_in(compile(lowered, {rank}), leads[static_cast<std::size_t>(rank)].instructions), 5);
    EXPECT_TRUE(leads[static_cast<std::size_t>(rank)].unread.empty());
  }
}

// Every rank can run its lead to the end with nothing but the leads of others, and every message that a lead sends is
// taken by a lead or known to be unread.
TEST(Lead, OfEveryScheduleStandsAlone) {
  for (const ScheduleFamily& family : schedule_families()) {
    if (family.name == "forward-only") continue;
    for (const int replicas : {1, 2}) {
      SCOPED_TRACE(family.name);
      const VerifiedSchedule lowered = lower(verify(
          side_by_side(std::vector<Schedule>(static_cast<std::size_t>(replicas), make_schedule(family.name, 4, 8)))));
      const std::vector<Lead> leads = find_leads(lowered);
      std::set<std::pair<StageId, MicrobatchId>> sent;
      std::set<std::pair<StageId, MicrobatchId>> taken;
      for (std::int32_t rank = 0; rank < lowered->ranks(); ++rank) {
        const Program program = compile(lowered, {rank});
        const Lead& lead = leads[static_cast<std::size_t>(rank)];
        for (std::size_t next = 0; next < lead.instructions; ++next) {
          const Action& action = program.instructions[next].action;
          if (action.kind == ActionKind::SendForward)
            sent.insert({{action.stage.value + 1}, action.microbatch});
          else if (action.kind == ActionKind::ReceiveForward)
            EXPECT_TRUE(taken.insert({action.stage, action.microbatch}).second);
          else
            EXPECT_EQ(action.kind, ActionKind::Forward);
        }
        for (const Instruction& instruction : lead.unread)
          EXPECT_TRUE(taken.insert({instruction.action.stage, instruction.action.microbatch}).second);
        const ActionKind behind = program.instructions.at(lead.instructions).action.kind;
        EXPECT_TRUE(behind != ActionKind::Forward && behind != ActionKind::SendForward);
      }
      EXPECT_EQ(sent, taken);
      EXPECT_GT(leads.front().instructions, 0);
    }
  }
}

}  // namespace
}  // namespace penstock::lead_test
