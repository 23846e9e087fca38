#include "pipeline/copies.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/counted_messages.h"
#include "penstock/nn/parameters.h"
#include "penstock/optim/optimizer.h"
#include "penstock/transport/layout.h"

namespace penstock {
namespace {

bool is_tied(const std::vector<TieGroup>& ties, std::int64_t layer, const ModuleParameter& parameter) {
  return std::any_of(parameter.names.begin(), parameter.names.end(),
                     [&](const std::string& name) { return group_of(ties, {layer, name}) != nullptr; });
}

// What a stage's holders exchange.
struct Contents {
  Tensors parameters;
  Tensors tied;
  std::vector<DeferredBatchNorm*> norms;
};

Contents contents_of(const Stage& stage, const std::vector<TieGroup>& ties) {
  Contents contents;
  for (std::size_t index = 0; index < stage.layers().size(); ++index) {
    const std::int64_t layer = stage.first_layer() + static_cast<std::int64_t>(index);
    const Layer& built = stage.layers()[index];
    for (const ModuleParameter& parameter : parameters_of(built)) {
      if (!parameter.tensor.requires_grad()) continue;
      (is_tied(ties, layer, parameter) ? contents.tied : contents.parameters).push_back(parameter.tensor);
    }
    for (const auto& norm : batch_norms_of(built)) contents.norms.push_back(norm.get());
  }
  return contents;
}

// Neighbours together, each part of at most so many bytes, unless it is one tensor, and of what a message can hold.
std::vector<Tensors> in_parts(const Tensors& tensors, Bytes most) {
  std::vector<Tensors> parts;
  Bytes size;
  for (const at::Tensor& tensor : tensors) {
    if (parts.empty() || parts.back().size() == most_message_tensors || size + bytes_of(tensor) > most) {
      parts.emplace_back();
      size = {};
    }
    parts.back().push_back(tensor);
    size += bytes_of(tensor);
  }
  return parts;
}

}  // namespace

Copies::Copies(const Placement& placement, const std::vector<TieGroup>& ties, const std::vector<Stage>& stages,
               const CopySettings& settings, Transport& transport, MemoryMeter& memory)
    : transport_(transport), memory_(memory), sent_(stages.size()) {
  for (std::size_t local = 0; local < stages.size(); ++local) {
    const auto& holders = placement.holders.at(stages[local].id().index());
    if (holders.size() > 1) divide(stages[local], local, holders, ties, settings);
  }
}

// Every bucket belongs to one holder, such that all have about as much to add up. What is tied belongs to the first,
// where it meets the other end of its tie.
void Copies::divide(const Stage& stage, std::size_t local_stage, const std::vector<RankId>& holders,
                    const std::vector<TieGroup>& ties, const CopySettings& settings) {
  const Contents contents = contents_of(stage, ties);
  const Bytes total = bytes_of(contents.parameters) + bytes_of(contents.tied);
  const auto count = static_cast<std::int64_t>(holders.size());
  // Small stages too are shared out among all holders.
  const Bytes most{std::max<std::int64_t>(1, std::min(settings.bucket.count, (total.count + count - 1) / count))};
  std::vector<Bytes> loads(holders.size());
  Bucket bucket;
  bucket.stage = stage.id();
  bucket.local_stage = local_stage;
  bucket.holders = holders;
  bucket.device = stage.device();
  if (settings.tree) bucket.sum = OrderedSum(OrderedSum::Order::Tree);
  const auto add_next = [&](std::size_t owner, Return back) {
    bucket.owner = holders[owner];
    bucket.back = back;
    loads[owner] += bytes_of(bucket.parameters);
    buckets_.push_back(bucket);
    if (back == Return::Never && !is_own(bucket))
      for (const at::Tensor& parameter : bucket.parameters) updated_elsewhere_.insert(parameter.unsafeGetTensorImpl());
    ++bucket.number;
  };
  for (Tensors& part : in_parts(contents.tied, most)) {
    bucket.parameters = std::move(part);
    add_next(0, settings.shard ? Return::Never : Return::BehindTies);
  }
  for (Tensors& part : in_parts(contents.parameters, most)) {
    bucket.parameters = std::move(part);
    const auto least = std::min_element(loads.begin(), loads.end());
    add_next(static_cast<std::size_t>(least - loads.begin()), settings.shard ? Return::Never : Return::AtOnce);
  }
  bucket.parameters.clear();
  for (std::size_t first = 0; first < contents.norms.size(); first += most_message_tensors) {
    const std::size_t end = std::min(first + most_message_tensors, contents.norms.size());
    bucket.norms.assign(contents.norms.begin() + static_cast<std::ptrdiff_t>(first),
                        contents.norms.begin() + static_cast<std::ptrdiff_t>(end));
    add_next(0, Return::AtOnce);
  }
}

GradientReduction Copies::reduction() {
  if (buckets_.empty()) return {};
  GradientReduction reduction;
  reduction.on_final = [this](std::size_t local_stage) {
    for (Bucket& bucket : buckets_)
      if (bucket.local_stage == local_stage) start(bucket);
  };
  reduction.advance = [this] {
    for (Bucket& bucket : buckets_)
      if (bucket.started && !bucket.done) advance(bucket, /*wait=*/false);
  };
  return reduction;
}

void Copies::begin() {
  for (Bucket& bucket : buckets_) {
    bucket.started = bucket.done = false;
    bucket.added = 0;
  }
}

namespace {

Tensors taken_from(const Tensors& parameters, const std::vector<DeferredBatchNorm*>& norms) {
  Tensors taken;
  for (const at::Tensor& parameter : parameters)
    taken.push_back(in_layout_of(parameter, std::exchange(parameter.mutable_grad(), {})));
  for (DeferredBatchNorm* norm : norms) taken.push_back(std::exchange(norm->gathered(), {}));
  return taken;
}

void put_into(const Tensors& parameters, const std::vector<DeferredBatchNorm*>& norms, Tensors tensors) {
  auto next = tensors.begin();
  for (const at::Tensor& parameter : parameters) parameter.mutable_grad() = std::move(*next++);
  for (DeferredBatchNorm* norm : norms) norm->gathered() = std::move(*next++);
}

}  // namespace

void Copies::start(Bucket& bucket) {
  bucket.started = true;
  bucket.own = taken_from(bucket.parameters, bucket.norms);
  if (!is_own(bucket)) send(bucket, bucket.owner, MessageKind::CopyGradient, std::exchange(bucket.own, {}));
}

void Copies::advance(Bucket& bucket, bool wait) {
  if (is_own(bucket)) {
    if (!add_arrived(bucket, wait)) return;
    Tensors sum = bucket.sum.take();
    if (bucket.back == Return::AtOnce) send_to_holders(bucket, MessageKind::CopySum, sum);
    put_into(bucket.parameters, bucket.norms, std::move(sum));
  } else if (bucket.back == Return::AtOnce) {
    if (!wait && !transport_.has_arrived(bucket.owner, {MessageKind::CopySum, bucket.stage.value, bucket.number}))
      return;
    put_into(bucket.parameters, bucket.norms, receive(bucket, bucket.owner, MessageKind::CopySum));
  }
  bucket.done = true;
}

// In the order of the holders, whoever is first.
bool Copies::add_arrived(Bucket& bucket, bool wait) {
  const Tag tag{MessageKind::CopyGradient, bucket.stage.value, bucket.number};
  for (; bucket.added < bucket.holders.size(); ++bucket.added) {
    const RankId holder = bucket.holders[bucket.added];
    const bool own = holder == transport_.rank();
    if (!own && !wait && !transport_.has_arrived(holder, tag)) return false;
    bucket.sum.add(own ? std::exchange(bucket.own, {}) : receive(bucket, holder, MessageKind::CopyGradient));
  }
  return true;
}

void Copies::add_up() {
  for (Bucket& bucket : buckets_)
    if (!bucket.started) start(bucket);
  // Own ones first: another rank may wait for their sums, and this one waits for that rank only afterwards.
  for (const bool own : {true, false})
    for (Bucket& bucket : buckets_)
      if (!bucket.done && is_own(bucket) == own) advance(bucket, /*wait=*/true);
}

void Copies::hand_back_tied() {
  for (const bool own : {true, false}) {
    for (const Bucket& bucket : buckets_) {
      if (bucket.back != Return::BehindTies || is_own(bucket) != own) continue;
      if (!own) {
        put_into(bucket.parameters, {}, receive(bucket, bucket.owner, MessageKind::CopySum));
        continue;
      }
      Tensors sums;
      sums.reserve(bucket.parameters.size());
      for (const at::Tensor& parameter : bucket.parameters) sums.push_back(parameter.grad());
      send_to_holders(bucket, MessageKind::CopySum, sums);
    }
  }
}

void Copies::share_weights() {
  const at::NoGradGuard no_graph;
  for (const bool own : {true, false}) {
    for (Bucket& bucket : buckets_) {
      if (bucket.back != Return::Never || is_own(bucket) != own) continue;
      if (own) {
        send_to_holders(bucket, MessageKind::CopyWeights, bucket.parameters);
        continue;
      }
      const Tensors weights = receive(bucket, bucket.owner, MessageKind::CopyWeights);
      for (std::size_t index = 0; index < weights.size(); ++index)
        bucket.parameters[index].detach().copy_(weights[index]);
    }
  }
}

// Each holder gets a copy of its own, which it may write to.
void Copies::send_to_holders(const Bucket& bucket, MessageKind kind, const Tensors& tensors) {
  const at::NoGradGuard no_graph;
  for (const RankId holder : bucket.holders) {
    if (holder == transport_.rank()) continue;
    Tensors copies;
    copies.reserve(tensors.size());
    for (const at::Tensor& tensor : tensors)
      copies.push_back(tensor.defined() ? tensor.detach().clone() : at::Tensor());
    send(bucket, holder, kind, std::move(copies));
  }
}

void Copies::send(const Bucket& bucket, RankId to, MessageKind kind, Tensors message) {
  sent_[bucket.local_stage] += bytes_of(message);
  send_counted(transport_, to, {kind, bucket.stage.value, bucket.number}, std::move(message));
}

Tensors Copies::receive(const Bucket& bucket, RankId from, MessageKind kind) {
  try {
    Tensors message = receive_counted(transport_, memory_, from, {kind, bucket.stage.value, bucket.number});
    for (at::Tensor& tensor : message)
      if (tensor.defined()) tensor = tensor.to(bucket.device);
    return message;
  } catch (const Aborted& aborted) {
    if (!aborted.peer_is_lost()) throw;
    // Nobody will say more about this failure than what waits for it.
    throw Aborted(fmt::format("rank {}, {} of stage {}: waits for rank {}: {}", transport_.rank().value,
                              kind == MessageKind::CopyWeights ? "weights" : "gradients", bucket.stage.value,
                              from.value, aborted.what()));
  }
}

}  // namespace penstock
