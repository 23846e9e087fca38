#include <algorithm>
#include <set>
#include <utility>

#include "penstock/exec/rank.h"

namespace penstock {
namespace {

// A message of activations: the stage that takes it and the microbatch.
using Activation = std::pair<StageId, MicrobatchId>;

// Follows the programs of all ranks from their beginning, as far as there is nothing but forward passes.
class LeadSearch {
 public:
  explicit LeadSearch(const std::vector<Program>& programs) : programs_(programs), leads_(programs.size()) {}

  std::vector<Lead> run() && {
    bool moved = true;
    while (moved) {
      moved = false;
      for (std::size_t rank = 0; rank < programs_.size(); ++rank) moved = advance(rank) || moved;
    }
    for (std::size_t rank = 0; rank < programs_.size(); ++rank) find_unread(rank);
    return std::move(leads_);
  }

 private:
  bool advance(std::size_t rank) {
    const std::vector<Instruction>& instructions = programs_[rank].instructions;
    std::size_t& next = leads_[rank].instructions;
    const std::size_t before = next;
    while (next < instructions.size() && is_possible(instructions[next].action)) {
      const Action& action = instructions[next].action;
      if (action.kind == ActionKind::SendForward) sent_.insert({{action.stage.value + 1}, action.microbatch});
      ++next;
    }
    return next > before;
  }

  [[nodiscard]] bool is_possible(const Action& action) const {
    if (action.kind == ActionKind::ReceiveForward) return sent_.contains({action.stage, action.microbatch});
    return action.kind == ActionKind::Forward || action.kind == ActionKind::SendForward;
  }

  void find_unread(std::size_t rank) {
    const std::vector<Instruction>& instructions = programs_[rank].instructions;
    Lead& lead = leads_[rank];
    std::copy_if(instructions.begin() + static_cast<std::ptrdiff_t>(lead.instructions), instructions.end(),
                 std::back_inserter(lead.unread), [&](const Instruction& instruction) {
                   return instruction.action.kind == ActionKind::ReceiveForward && is_possible(instruction.action);
                 });
  }

  const std::vector<Program>& programs_;
  std::vector<Lead> leads_;
  std::set<Activation> sent_;
};

}  // namespace

std::vector<Lead> find_leads(const VerifiedSchedule& lowered) {
  std::vector<Program> programs;
  programs.reserve(lowered->actions.size());
  for (std::int32_t rank = 0; rank < lowered->ranks(); ++rank) programs.push_back(compile(lowered, {rank}));
  return LeadSearch(programs).run();
}

}  // namespace penstock
