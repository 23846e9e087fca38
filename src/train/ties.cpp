// Parameters that are one and live in two layers.
#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

#include "train/worker.h"

namespace penstock {

const std::vector<RankId>& Worker::holders_of_layer(std::int64_t layer) const {
  const Cut& cut = plan_.settings.cut;
  const auto stage = std::upper_bound(cut.begin(), cut.end(), layer) - cut.begin() - 1;
  return plan_.training->placement.holders.at(static_cast<std::size_t>(stage));
}

at::Tensor* Worker::find(const ParameterAddress& address) {
  for (Parameter& parameter : parameters_)
    if (parameter.layer == address.layer && parameter.name == address.name) return &parameter.tensor;
  return nullptr;
}

namespace {

bool holds(const std::vector<RankId>& holders, RankId rank) {
  return std::find(holders.begin(), holders.end(), rank) != holders.end();
}

}  // namespace

// Every copy starts as the owner does, which the first holder of the owner's stage sends to those that do not hold it.
void Worker::share_initial_ties() {
  const at::NoGradGuard no_graph;
  for (std::size_t index = 0; index < plan_.network.ties.size(); ++index) {
    const Tie& tie = plan_.network.ties[index];
    const Tag tag{MessageKind::TiedSum, static_cast<std::int32_t>(index), 0};
    const std::vector<RankId>& owners = holders_of_layer(tie.owner.layer);
    const std::vector<RankId>& copies = holders_of_layer(tie.copy.layer);
    const at::Tensor* owner = find(tie.owner);
    at::Tensor* copy = find(tie.copy);
    if ((holds(owners, transport_.rank()) && owner == nullptr) || (holds(copies, transport_.rank()) && copy == nullptr))
      throw bad_input(fmt::format("a tie of layer {} {} with layer {} {}", tie.owner.layer, tie.owner.name,
                                  tie.copy.layer, tie.copy.name),
                      "two parameters of the network", "check the names of the tie");
    if (owners.front() == transport_.rank())
      for (const RankId rank : copies)
        if (!holds(owners, rank)) transport_.send(rank, tag, {owner->detach().clone()});
    if (copy == nullptr) continue;
    copy->copy_(owner != nullptr ? *owner : transport_.receive(owners.front(), tag).front());
  }
}

// Both ends of a tie get owner's + copy's gradient, in this order on every cut. The ends keep buffers of their own also
// where they share a rank, so that the order of additions never changes. Of several holders the first have the sums,
// and hand them back to the others when the ties are done.
void Worker::add_tied_gradients() {
  const at::NoGradGuard no_graph;
  const auto gradient = [](at::Tensor& parameter) {
    return parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
  };
  for (std::size_t index = 0; index < plan_.network.ties.size(); ++index) {
    const Tie& tie = plan_.network.ties[index];
    const Tag there{MessageKind::TiedGradient, static_cast<std::int32_t>(index), 0};
    const Tag back{MessageKind::TiedSum, static_cast<std::int32_t>(index), 0};
    const RankId owner_rank = holders_of_layer(tie.owner.layer).front();
    const RankId copy_rank = holders_of_layer(tie.copy.layer).front();
    at::Tensor* owner = owner_rank == transport_.rank() ? find(tie.owner) : nullptr;
    at::Tensor* copy = copy_rank == transport_.rank() ? find(tie.copy) : nullptr;
    if (copy != nullptr && owner == nullptr) transport_.send(owner_rank, there, {gradient(*copy)});
    if (owner != nullptr) {
      const at::Tensor other = copy != nullptr ? gradient(*copy) : transport_.receive(copy_rank, there).front();
      owner->mutable_grad() = gradient(*owner) + other.to(owner->device());
      if (copy != nullptr) {
        copy->mutable_grad() = owner->grad().clone();
      } else {
        transport_.send(copy_rank, back, {owner->grad().clone()});
      }
    } else if (copy != nullptr) {
      copy->mutable_grad() = transport_.receive(owner_rank, back).front().to(copy->device());
    }
  }
}

}  // namespace penstock
