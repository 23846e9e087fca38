#include "pipeline/link_account.h"

#include <algorithm>
#include <limits>

namespace penstock {
namespace {

constexpr double never = std::numeric_limits<double>::quiet_NaN();

}  // namespace

LinkAccount::LinkAccount(int stages, int microbatches, std::vector<RankId> leaders)
    : stages_(stages), microbatches_(microbatches), leaders_(std::move(leaders)) {}

std::size_t LinkAccount::process_of(RankId rank) const {
  return static_cast<std::size_t>(std::upper_bound(leaders_.begin(), leaders_.end(), rank) - leaders_.begin());
}

void LinkAccount::add(const std::vector<RankTraffic>& ranks) {
  // When each message's send began, by direction, sending stage and microbatch.
  std::vector<double> begun(2 * static_cast<std::size_t>(stages_) * static_cast<std::size_t>(microbatches_), never);
  const auto place = [&](bool forward, std::int32_t stage, MicrobatchId microbatch) -> double& {
    const auto row = 2 * static_cast<std::size_t>(stage) + (forward ? 1 : 0);
    return begun.at(row * static_cast<std::size_t>(microbatches_) + microbatch.index());
  };
  for (const RankTraffic& rank : ranks)
    for (const Event& event : rank.events)
      if (is_send(event.action.kind))
        place(event.action.kind == ActionKind::SendForward, event.action.stage.value, event.action.microbatch) =
            event.start.count;
  for (std::size_t to = 0; to < ranks.size(); ++to) {
    for (std::size_t index = 0; index < ranks[to].receipts.size(); ++index) {
      const Receipt& receipt = ranks[to].receipts[index];
      if (receipt.from.value < 0) continue;
      const Event& event = ranks[to].events[index];
      const bool forward = event.action.kind == ActionKind::ReceiveForward;
      const double sent = place(forward, event.action.stage.value + (forward ? -1 : 1), event.action.microbatch);
      if (!(sent <= std::numeric_limits<double>::max())) continue;
      const RankId receiver{static_cast<std::int32_t>(to)};
      LinkUse& use = uses_[{receipt.from, receiver}];
      use.from = receipt.from.value;
      use.to = receiver.value;
      use.between_processes = process_of(receipt.from) != process_of(receiver);
      use.bytes += receipt.bytes;
      ++use.messages;
      use.waited += event.end - event.start;
      const double arrived = receipt.arrived.count;
      // Clocks of two machines agree only within the time of a message.
      const double transfer = std::max(0.0, arrived - sent);
      const double seen = std::max(0.0, std::min(arrived, event.end.count) - std::max(sent, event.start.count));
      use.transfer.count += transfer;
      use.hidden.count += transfer - std::min(seen, transfer);
    }
  }
}

std::vector<LinkUse> LinkAccount::uses() const {
  std::vector<LinkUse> uses;
  uses.reserve(uses_.size());
  for (const auto& [ranks, use] : uses_) uses.push_back(use);
  return uses;
}

}  // namespace penstock
