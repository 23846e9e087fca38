#include "penstock/nn/buffers.h"

#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/instancenorm.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"

namespace penstock {
namespace {

bool same_values(const at::Tensor& one, const at::Tensor& other) {
  if (one.layout() != at::kStrided || other.layout() != at::kStrided) return false;
  if (one.scalar_type() != other.scalar_type() || one.sizes() != other.sizes()) return false;
  // What is not a number equals nothing, itself neither.
  return at::equal(one, other) ||
         one.eq(other).logical_or_(one.ne(one).logical_and_(other.ne(other))).all().item<bool>();
}

// In the way in which the module changed it: libtorch's batch norm tells autograd nothing of its running statistics,
// though it keeps them in the graph; what autograd was told of, it hears of again.
void write(const at::Tensor& buffer, const at::Tensor& value, bool seen_by_autograd) {
  (seen_by_autograd ? buffer : buffer.data()).copy_(value);
}

template <class... Norms>
bool keeps_statistics(const torch::nn::Module& module) {
  return (... || [&] {
    const auto* norm = module.as<Norms>();
    return norm != nullptr && norm->options.track_running_stats() && norm->is_training();
  }());
}

}  // namespace

// A layer is shared, not given: its copy says so.  NOLINTNEXTLINE(modernize-pass-by-value)
LayerBuffers::LayerBuffers(const Layer& built, std::int64_t layer, const BufferUse& use)
    : layer_(built), index_(layer), use_(use) {}

std::vector<at::Tensor> LayerBuffers::buffers() const {
  std::vector<at::Tensor> found;
  for (const auto& buffer : layer_.module().named_buffers())
    if (buffer.value().defined()) found.push_back(buffer.value());
  return found;
}

std::string LayerBuffers::name_of(std::size_t buffer) const {
  for (const auto& named : layer_.module().named_buffers())
    if (named.value().defined() && buffer-- == 0) return named.key();
  return "a buffer";
}

LayerBuffers::Kept LayerBuffers::values() {
  Values now;
  now.buffers = buffers();
  if (now.buffers.empty()) return nullptr;
  const bool comparable = latest_ && latest_->copies.size() == now.buffers.size();
  bool changed = !comparable;
  for (std::size_t index = 0; index < now.buffers.size(); ++index) {
    const at::Tensor& buffer = now.buffers[index];
    const bool same =
        comparable && latest_->buffers[index].is_same(buffer) && same_values(latest_->copies[index], buffer);
    changed = changed || !same || latest_->versions[index] != version_of(buffer);
    now.copies.push_back(same ? latest_->copies[index] : buffer.detach().clone());
    now.versions.push_back(version_of(buffer));
  }
  if (changed) latest_ = std::make_shared<const Values>(std::move(now));
  return latest_;
}

void LayerBuffers::begin_step() {
  last_microbatch_ = -1;
  first_runs_.clear();
  latest_.reset();
  before_.reset();
  pass_ = Pass::Free;
}

void LayerBuffers::begin_pass(std::int64_t microbatch) {
  pass_ = Pass::Free;
  if (use_.recomputed || use_.copied) parameter_versions_ = versions_of(layer_.module().parameters());
  const at::NoGradGuard no_graph;
  if (RecomputeScope::active()) {
    const auto first = first_runs_.extract(microbatch);
    if (first.empty()) return;
    pass_ = Pass::Second;
    put(*first.mapped());
    return;
  }
  const bool in_order = std::exchange(last_microbatch_, microbatch) < microbatch;
  if (!use_.recomputed && !use_.copied && in_order) return;
  before_ = values();
  if (!before_) return;
  pass_ = use_.copied || !in_order ? Pass::Watched : Pass::Kept;
  if (use_.recomputed) first_runs_[microbatch] = before_;
}

void LayerBuffers::end_pass() {
  if (use_.recomputed || use_.copied) refuse_changed_parameters();
  if (pass_ == Pass::Free) return;
  const at::NoGradGuard no_graph;
  const Kept before = std::exchange(before_, {});
  check_same_tensors(*before);
  if (first_runs_.empty()) latest_.reset();  // nobody waits for it
  if (pass_ == Pass::Watched) refuse_changes(*before);
  if (pass_ != Pass::Second) return;
  for (std::size_t index = 0; index < before->buffers.size(); ++index) {
    const at::Tensor& buffer = before->buffers[index];
    if (!same_values(buffer, before->copies[index]))
      write(buffer, before->copies[index], version_of(buffer) != before->versions[index]);
  }
}

// What the first run saw; what is there now is kept in `before_`, with the versions that the second run begins with.
void LayerBuffers::put(const Values& first) {
  check_same_tensors(first);
  Values now;
  now.buffers = first.buffers;
  for (std::size_t index = 0; index < first.buffers.size(); ++index) {
    const at::Tensor& buffer = first.buffers[index];
    const bool same = same_values(buffer, first.copies[index]);
    now.copies.push_back(same ? first.copies[index] : buffer.detach().clone());
    if (!same) write(buffer, first.copies[index], version_of(buffer) != first.versions[index]);
    now.versions.push_back(version_of(buffer));
  }
  before_ = std::make_shared<const Values>(std::move(now));
}

void LayerBuffers::check_same_tensors(const Values& before) const {
  const auto now = buffers();
  bool same = now.size() == before.buffers.size();
  for (std::size_t index = 0; same && index < now.size(); ++index) {
    same = now[index].is_same(before.buffers[index]) && now[index].sizes() == before.copies[index].sizes();
    if (!same)
      throw run_failed(fmt::format("layer {} put another tensor in place of its buffer {}", index_, name_of(index)),
                       "buffers that are changed in place", "write to it with copy_, mul_ or add_");
  }
  if (!same)
    throw run_failed(fmt::format("layer {} had {} buffers before its forward pass and {} now", index_,
                                 before.buffers.size(), now.size()),
                     "as many as before", "register all buffers in the constructor");
}

void LayerBuffers::refuse_changes(const Values& before) const {
  for (std::size_t index = 0; index < before.buffers.size(); ++index) {
    const at::Tensor& buffer = before.buffers[index];
    if (version_of(buffer) == before.versions[index] && same_values(buffer, before.copies[index])) continue;
    const std::string name = name_of(index);
    if (use_.copied)
      throw run_failed(
          fmt::format("the forward pass of layer {} changes its buffer {}, and other ranks hold copies of the layer, "
                      "which see other microbatches",
                      index_, name),
          "buffers that do not depend on how microbatches are shared out",
          "use penstock::DeferredBatchNorm, or neither replicas nor a bidirectional schedule");
    throw run_failed(fmt::format("the forward pass of layer {} changes its buffer {}, and the schedule runs its "
                                 "microbatches in another order than theirs",
                                 index_, name),
                     "forward passes of a stage in the order of the microbatches", "correct the schedule");
  }
}

// They may be large, so that only what autograd was told of is seen.
void LayerBuffers::refuse_changed_parameters() const {
  const auto parameters = layer_.module().named_parameters();
  for (std::size_t index = 0; index < parameters.size() && index < parameter_versions_.size(); ++index) {
    if (version_of(parameters[index].value()) == parameter_versions_[index]) continue;
    throw run_failed(
        fmt::format("the forward pass of layer {} changes its parameter {}, and {}", index_, parameters[index].key(),
                    use_.copied ? "other ranks hold copies of the layer" : "is to be run again"),
        "parameters that only the optimizer changes",
        use_.copied ? "use neither replicas nor a bidirectional schedule" : "do not recompute the layer");
  }
}

void check_copied(const Layer& built, std::int64_t layer) {
  using namespace torch::nn;
  for (const auto& module : built.module().modules()) {
    if (keeps_statistics<BatchNorm1dImpl, BatchNorm2dImpl, BatchNorm3dImpl, InstanceNorm1dImpl, InstanceNorm2dImpl,
                         InstanceNorm3dImpl>(*module))
      throw bad_input(
          fmt::format("layer {} holds {}, whose running statistics would differ between the ranks that hold "
                      "copies of it",
                      layer, module->name()),
          "a layer that is the same on all of them",
          "use penstock::DeferredBatchNorm, or neither replicas nor a bidirectional schedule");
  }
}

}  // namespace penstock
