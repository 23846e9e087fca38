#include "penstock/schedule/lower.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

#include "penstock/base/error.h"
#include "penstock/schedule/routes.h"

namespace penstock {
namespace {

class Lowering {
 public:
  explicit Lowering(const Schedule& schedule) : schedule_(schedule), routes_(schedule) {}

  // `count` actions from `actions` on: one, or a pair that overlaps. What they need comes before both.
  void add(std::vector<Action>& row, RankId rank, const Action* actions, std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i) add_receive(row, rank, actions[i]);
    row.insert(row.end(), actions, actions + count);
    for (std::size_t i = 0; i < count; ++i) add_send(row, rank, actions[i]);
  }

 private:
  [[nodiscard]] bool crosses(RankId rank, std::int32_t other_stage, MicrobatchId microbatch) const {
    return other_stage >= 0 && other_stage < schedule_.stages && routes_.rank_of({other_stage}, microbatch) != rank;
  }

  void add_receive(std::vector<Action>& row, RankId rank, const Action& action) const {
    if (action.kind == ActionKind::Forward && crosses(rank, action.stage.value - 1, action.microbatch))
      row.push_back({ActionKind::ReceiveForward, action.stage, action.microbatch});
    if (is_input_backward(action) && crosses(rank, action.stage.value + 1, action.microbatch))
      row.push_back({ActionKind::ReceiveBackward, action.stage, action.microbatch});
  }

  void add_send(std::vector<Action>& row, RankId rank, const Action& action) const {
    if (action.kind == ActionKind::Forward && crosses(rank, action.stage.value + 1, action.microbatch))
      row.push_back({ActionKind::SendForward, action.stage, action.microbatch});
    if (is_input_backward(action) && crosses(rank, action.stage.value - 1, action.microbatch))
      row.push_back({ActionKind::SendBackward, action.stage, action.microbatch});
  }

  [[nodiscard]] static bool is_input_backward(const Action& action) {
    return action.kind == ActionKind::Backward || action.kind == ActionKind::InputBackward;
  }

  const Schedule& schedule_;
  Routes routes_;
};

bool runs(const Action& action) { return is_compute(action.kind) || is_communication(action.kind); }

bool is_receive(const Action& action) { return is_communication(action.kind) && !is_send(action.kind); }

// Moves receives ahead, in their order, until `most` of them are posted and unused at any time. In a row as `add` makes
// it, a receive is used by the next group of compute actions; a group ends behind its sends.
std::vector<Action> posted_early(const std::vector<Action>& row, std::size_t most) {
  std::vector<Action> receives;
  std::copy_if(row.begin(), row.end(), std::back_inserter(receives), is_receive);
  std::vector<Action> result;
  result.reserve(row.size());
  std::size_t posted = 0;
  std::size_t used = 0;
  const auto post = [&] {
    while (posted < receives.size() && posted < used + most) result.push_back(receives[posted++]);
  };
  post();
  std::size_t needed = 0;  // receives up to this one belong to the group that is being written
  for (std::size_t position = 0; position < row.size(); ++position) {
    const Action& action = row[position];
    if (is_receive(action)) {
      ++needed;
      continue;
    }
    // A pair may need two at once, whatever the number.
    while (posted < needed) result.push_back(receives[posted++]);
    result.push_back(action);
    const bool group_ends = !action.overlaps_next && (position + 1 == row.size() || !is_send(row[position + 1].kind));
    if (!group_ends) continue;
    used = needed;
    post();
  }
  return result;
}

}  // namespace

VerifiedSchedule lower(const VerifiedSchedule& compute, const LowerOptions& options) {
  if (options.posted_receives < 0)
    throw bad_input(fmt::format("{} posted receives", options.posted_receives), "0 or more", "raise the number");
  Schedule lowered = compute.get();
  bool communicates = false;
  for (auto& row : lowered.actions) {
    std::erase_if(row, [](const Action& action) { return !runs(action); });
    communicates =
        communicates || std::any_of(row.begin(), row.end(), [](const Action& a) { return is_communication(a.kind); });
  }
  const VerifyOptions proof{.accumulation = compute.accumulation()};
  if (communicates) return verify(std::move(lowered), proof);
  const Lowering lowering(compute.get());
  for (std::int32_t rank = 0; rank < lowered.ranks(); ++rank) {
    const std::vector<Action> before = std::move(lowered.actions[static_cast<std::size_t>(rank)]);
    std::vector<Action> after;
    after.reserve(2 * before.size());
    for (std::size_t position = 0; position < before.size();) {
      const std::size_t count = before[position].overlaps_next ? 2 : 1;
      lowering.add(after, {rank}, before.data() + position, count);
      position += count;
    }
    if (options.posted_receives > 0) after = posted_early(after, static_cast<std::size_t>(options.posted_receives));
    lowered.actions[static_cast<std::size_t>(rank)] = std::move(after);
  }
  return verify(std::move(lowered), proof);
}

}  // namespace penstock
