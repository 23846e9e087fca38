// What lives on two ranks and has to stay equal: tied parameters, and the two copies of a bidirectional schedule's
// stages.
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

RankId Worker::rank_of_layer(std::int64_t layer) const { return holders_of_layer(layer).front(); }

at::Tensor* Worker::find(const ParameterAddress& address) {
  for (Parameter& parameter : parameters_)
    if (parameter.layer == address.layer && parameter.name == address.name) return &parameter.tensor;
  return nullptr;
}

// A tie between stages with two holders each is added up on both, which must hold both stages. So do the first and the
// last stage of every bidirectional placement, where a network's tie usually is.
void Worker::check_holders(const Tie& tie) const {
  const auto& owner = holders_of_layer(tie.owner.layer);
  const auto& copy = holders_of_layer(tie.copy.layer);
  if ((owner.size() == 1 && copy.size() == 1) || owner == copy) return;
  throw bad_input(fmt::format("a tie of layers {} and {}, whose stages have two holders each, on different ranks",
                              tie.owner.layer, tie.copy.layer),
                  "both layers on the same ranks", "move the cut, or take a schedule with one copy of each stage");
}

namespace {

// What the two copies of a stage have each gathered from their own microbatches: the gradients of the weights, and the
// sums of batch norms. Undefined where there was nothing.
std::vector<at::Tensor*> gathered_by(const Stage& stage) {
  std::vector<at::Tensor*> gathered;
  for (const Layer& layer : stage.layers()) {
    for (const at::Tensor& parameter : layer.module().parameters()) gathered.push_back(&parameter.mutable_grad());
    for (const auto& module : layer.module().modules())
      if (auto* norm = module->as<DeferredBatchNorm>()) gathered.push_back(&norm->gathered());
  }
  return gathered;
}

}  // namespace

// The two copies of a bidirectional schedule's stage have each seen some of the microbatches: both get what the first
// holder + the second holder gathered, and so stay equal for ever.
void Worker::add_copied_gradients() {
  const at::NoGradGuard no_graph;
  std::vector<const Stage*> copied;
  for (const Stage& stage : executor_.stages())
    if (plan_.training->placement.holders[stage.id().index()].size() == 2) copied.push_back(&stage);
  const auto tag = [](MessageKind kind, const Stage& stage) { return Tag{kind, stage.id().value, 0}; };
  for (const Stage* stage : copied) {
    if (speaks_for(stage->id())) continue;
    std::vector<at::Tensor> gathered;
    for (const at::Tensor* tensor : gathered_by(*stage)) gathered.push_back(*tensor);
    const RankId first = plan_.training->placement.holders[stage->id().index()].front();
    transport_.send(first, tag(MessageKind::CopyGradient, *stage), std::move(gathered));
  }
  for (const Stage* stage : copied) {
    const auto& holders = plan_.training->placement.holders[stage->id().index()];
    const bool first = speaks_for(stage->id());
    const std::vector<at::Tensor> arrived =
        first ? transport_.receive(holders.back(), tag(MessageKind::CopyGradient, *stage))
              : transport_.receive(holders.front(), tag(MessageKind::CopySum, *stage));
    std::vector<at::Tensor> sums;
    auto next = arrived.begin();
    for (at::Tensor* own : gathered_by(*stage)) {
      const at::Tensor other = next->defined() ? next->to(stage->device()) : at::Tensor();
      ++next;
      if (!first || !own->defined())
        *own = other.defined() ? other.clone() : at::Tensor();
      else if (other.defined())
        *own = *own + other;
      if (first) sums.push_back(own->defined() ? own->clone() : at::Tensor());
    }
    if (first) transport_.send(holders.back(), tag(MessageKind::CopySum, *stage), std::move(sums));
  }
}

void Worker::share_initial_ties() {
  const at::NoGradGuard no_graph;
  for (std::size_t index = 0; index < plan_.network.ties.size(); ++index) {
    const Tie& tie = plan_.network.ties[index];
    check_holders(tie);
    const Tag tag{MessageKind::TiedSum, static_cast<std::int32_t>(index), 0};
    const RankId owner_rank = rank_of_layer(tie.owner.layer);
    const RankId copy_rank = rank_of_layer(tie.copy.layer);
    at::Tensor* owner = find(tie.owner);
    at::Tensor* copy = find(tie.copy);
    if ((owner_rank == transport_.rank() && owner == nullptr) || (copy_rank == transport_.rank() && copy == nullptr))
      throw bad_input(fmt::format("a tie of layer {} {} with layer {} {}", tie.owner.layer, tie.owner.name,
                                  tie.copy.layer, tie.copy.name),
                      "two parameters of the network", "check the names of the tie");
    if (owner != nullptr && copy == nullptr) transport_.send(copy_rank, tag, {owner->detach().clone()});
    if (copy == nullptr) continue;
    copy->copy_(owner != nullptr ? *owner : transport_.receive(owner_rank, tag).front());
  }
}

// Both ends of a tie get owner's + copy's gradient, in this order on every cut. The copies keep buffers of their own
// also where they share a rank, so that the order of additions never changes.
void Worker::add_tied_gradients() {
  const at::NoGradGuard no_graph;
  const auto gradient = [](at::Tensor& parameter) {
    return parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
  };
  for (std::size_t index = 0; index < plan_.network.ties.size(); ++index) {
    const Tie& tie = plan_.network.ties[index];
    const Tag there{MessageKind::TiedGradient, static_cast<std::int32_t>(index), 0};
    const Tag back{MessageKind::TiedSum, static_cast<std::int32_t>(index), 0};
    const RankId owner_rank = rank_of_layer(tie.owner.layer);
    const RankId copy_rank = rank_of_layer(tie.copy.layer);
    at::Tensor* owner = find(tie.owner);
    at::Tensor* copy = find(tie.copy);
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
