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
        if (!holds(owners, rank)) give_tied(rank, tag, owner->detach().clone());
    if (copy == nullptr) continue;
    copy->copy_(owner != nullptr ? *owner : take_tied(owners.front(), tag));
  }
}

// Every end of a tie gets the owner's gradient and its copies', added in the order of the ties on every cut. The ends
// keep buffers of their own also where they share a rank, so that the order of additions never changes. Of several
// holders the first have the sums, and hand them back to the others when the ties are done.
void Worker::add_tied_gradients() {
  const at::NoGradGuard no_graph;
  gather_tied_gradients();
  hand_out_tied_sums();
}

namespace {

at::Tensor taken_gradient(at::Tensor& parameter) {
  at::Tensor gradient = std::exchange(parameter.mutable_grad(), {});
  return gradient.defined() ? gradient : at::zeros_like(parameter);
}

}  // namespace

// A copy gives its gradient away: until the sum comes back it needs none.
void Worker::gather_tied_gradients() {
  for (std::size_t index = 0; index < plan_.network.ties.size(); ++index) {
    const Tie& tie = plan_.network.ties[index];
    const Tag tag{MessageKind::TiedGradient, static_cast<std::int32_t>(index), 0};
    const RankId owner_rank = holders_of_layer(tie.owner.layer).front();
    const RankId copy_rank = holders_of_layer(tie.copy.layer).front();
    at::Tensor* owner = owner_rank == transport_.rank() ? find(tie.owner) : nullptr;
    at::Tensor* copy = copy_rank == transport_.rank() ? find(tie.copy) : nullptr;
    if (copy != nullptr && owner == nullptr) give_tied(owner_rank, tag, taken_gradient(*copy));
    if (owner == nullptr) continue;
    at::Tensor sum = taken_gradient(*owner);
    sum.add_(copy != nullptr ? taken_gradient(*copy) : take_tied(copy_rank, tag).to(owner->device()));
    owner->mutable_grad() = std::move(sum);
  }
}

void Worker::hand_out_tied_sums() {
  for (std::size_t index = 0; index < plan_.network.ties.size(); ++index) {
    const Tie& tie = plan_.network.ties[index];
    const Tag tag{MessageKind::TiedSum, static_cast<std::int32_t>(index), 0};
    const RankId owner_rank = holders_of_layer(tie.owner.layer).front();
    const RankId copy_rank = holders_of_layer(tie.copy.layer).front();
    at::Tensor* owner = owner_rank == transport_.rank() ? find(tie.owner) : nullptr;
    at::Tensor* copy = copy_rank == transport_.rank() ? find(tie.copy) : nullptr;
    if (owner != nullptr && copy == nullptr) give_tied(copy_rank, tag, owner->grad().clone());
    if (copy == nullptr) continue;
    copy->mutable_grad() = owner != nullptr ? owner->grad().clone() : take_tied(owner_rank, tag).to(copy->device());
  }
}

namespace {

std::int64_t bytes_on_host(const at::Tensor& tensor) {
  return tensor.device().is_cpu() ? static_cast<std::int64_t>(tensor.nbytes()) : 0;
}

}  // namespace

// The bytes go along with the message, so that they count on one rank.
void Worker::give_tied(RankId to, const Tag& tag, at::Tensor tensor) {
  const std::int64_t on_host = bytes_on_host(tensor);
  transport_.send(to, tag, {std::move(tensor)});
  memory_.moved(Bytes{-on_host});
}

at::Tensor Worker::take_tied(RankId from, const Tag& tag) {
  const std::vector<at::Tensor> message = transport_.receive(from, tag);
  memory_.moved(Bytes{bytes_on_host(message.front())});
  return message.front();
}

}  // namespace penstock
