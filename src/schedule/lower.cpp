#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <optional>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/schedule/routes.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

bool is_input_backward(const Action& action) {
  return action.kind == ActionKind::Backward || action.kind == ActionKind::InputBackward;
}

// The messages from one rank to another, as receives in the order of their sends.
struct Channel {
  std::vector<Action> receives;
  std::size_t next = 0;  // the first that the other rank has not received yet
};

class Lowering {
 public:
  explicit Lowering(const Schedule& schedule)
      : schedule_(schedule), routes_(schedule), channels_(schedule.actions.size()) {
    const std::size_t size = as_size(schedule.stages) * as_size(schedule.microbatches);
    received_activation_.resize(size);
    received_gradient_.resize(size);
    for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
      for (const Action& action : entry(schedule.actions, rank))
        if (const auto send = send_of({rank}, action)) {
          const Action receive = receive_for(*send);
          channel(rank, rank_of(receive).value).receives.push_back(receive);
        }
  }

  // From which other rank the action needs a message.
  [[nodiscard]] std::optional<RankId> source_of(RankId rank, const Action& action) const {
    if (action.kind == ActionKind::Forward) return peer(rank, action, -1);
    return is_input_backward(action) ? peer(rank, action, 1) : std::nullopt;
  }

  // `count` actions from `actions` on: one, or a pair that overlaps. What they need comes before both.
  void add(std::vector<Action>& row, RankId rank, const Action* actions, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) add_receives(row, rank, actions[i]);
    row.insert(row.end(), actions, actions + count);
    for (std::size_t i = 0; i < count; ++i)
      if (const auto send = send_of(rank, actions[i])) row.push_back(*send);
  }

 private:
  [[nodiscard]] RankId rank_of(const Action& action) const { return routes_.rank_of(action.stage, action.microbatch); }

  // Where the stage before or after it does this action's microbatch, if that is another rank.
  [[nodiscard]] std::optional<RankId> peer(RankId rank, const Action& action, std::int32_t step) const {
    const StageId stage{action.stage.value + step};
    if (stage.value < 0 || stage.value >= schedule_.stages) return std::nullopt;
    const RankId other = routes_.rank_of(stage, action.microbatch);
    return other == rank ? std::nullopt : std::optional(other);
  }

  [[nodiscard]] std::optional<Action> send_of(RankId rank, const Action& action) const {
    if (action.kind == ActionKind::Forward && peer(rank, action, 1))
      return Action{ActionKind::SendForward, action.stage, action.microbatch};
    if (is_input_backward(action) && peer(rank, action, -1))
      return Action{ActionKind::SendBackward, action.stage, action.microbatch};
    return std::nullopt;
  }

  [[nodiscard]] static Action receive_for(const Action& send) {
    const bool forward = send.kind == ActionKind::SendForward;
    return {forward ? ActionKind::ReceiveForward : ActionKind::ReceiveBackward,
            {send.stage.value + (forward ? 1 : -1)},
            send.microbatch};
  }

  Channel& channel(std::int32_t from, std::int32_t to) { return entry(channels_, from)[to]; }

  std::vector<bool>::reference received(const Action& receive) {
    auto& table = receive.kind == ActionKind::ReceiveForward ? received_activation_ : received_gradient_;
    return table[receive.stage.index() * as_size(schedule_.microbatches) + receive.microbatch.index()];
  }

  // What the action needs, and before it what the same rank sent earlier: it is there no later, and an engine that
  // knows messages only by their order would otherwise take the one for the other.
  void add_receives(std::vector<Action>& row, RankId rank, const Action& action) {
    const auto from = source_of(rank, action);
    if (!from) return;
    const Action needed{action.kind == ActionKind::Forward ? ActionKind::ReceiveForward : ActionKind::ReceiveBackward,
                        action.stage, action.microbatch};
    Channel& messages = channel(from->value, rank.value);
    while (!received(needed)) {
      const Action& receive = messages.receives.at(messages.next++);
      received(receive) = true;
      row.push_back(receive);
    }
  }

  const Schedule& schedule_;
  Routes routes_;
  std::vector<std::map<std::int32_t, Channel>> channels_;  // by sender and receiver
  std::vector<bool> received_activation_;                  // by stage and microbatch
  std::vector<bool> received_gradient_;
};

bool runs(const Action& action) { return is_compute(action.kind) || is_communication(action.kind); }

bool is_receive(const Action& action) { return is_communication(action.kind) && !is_send(action.kind); }

// Moves receives ahead, in their order, until `most` of them are posted and unused.
std::vector<Action> posted_early(const Lowering& lowering, RankId rank, const std::vector<Action>& row,
                                 std::size_t most) {
  std::vector<Action> receives;
  std::copy_if(row.begin(), row.end(), std::back_inserter(receives), is_receive);
  std::vector<Action> result;
  result.reserve(row.size());
  std::size_t posted = 0;
  std::size_t used = 0;
  const auto post_up_to = [&](std::size_t wanted) {
    while (posted < wanted) result.push_back(receives[posted++]);
  };
  const auto post = [&] {
    while (posted < receives.size() && posted - used < most) post_up_to(posted + 1);
  };
  post();
  std::size_t needed = 0;  // so many receives stand before this place in `row`
  for (std::size_t position = 0; position < row.size(); ++position) {
    const Action& action = row[position];
    if (is_receive(action)) {
      ++needed;
      continue;
    }
    post_up_to(needed);
    result.push_back(action);
    if (lowering.source_of(rank, action)) ++used;
    // Not between a pair's halves, and behind the sends that follow an action at once.
    const bool group_ends = !action.overlaps_next && (position + 1 == row.size() || !is_send(row[position + 1].kind));
    if (group_ends) post();
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
  Lowering lowering(compute.get());
  for (std::int32_t rank = 0; rank < lowered.ranks(); ++rank) {
    const std::vector<Action> before = std::move(entry(lowered.actions, rank));
    std::vector<Action> after;
    after.reserve(2 * before.size());
    for (std::size_t position = 0; position < before.size();) {
      const std::size_t count = before[position].overlaps_next ? 2 : 1;
      lowering.add(after, {rank}, before.data() + position, count);
      position += count;
    }
    if (options.posted_receives > 0) after = posted_early(lowering, {rank}, after, as_size(options.posted_receives));
    entry(lowered.actions, rank) = std::move(after);
  }
  return verify(std::move(lowered), proof);
}

}  // namespace penstock
