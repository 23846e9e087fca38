#include "pipeline/input_devices.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace penstock {

InputDevices::InputDevices(const PipelinePlan& plan, RankId first, RankId end) {
  const Schedule& schedule = plan.training.get();
  inputs_.resize(static_cast<std::size_t>(schedule.microbatches));
  targets_ = inputs_;
  for (RankId rank = first; rank < end; ++rank.value) {
    const at::Device device = device_of(plan, rank);
    if (device.is_cpu()) continue;
    for (const Action& action : schedule.actions[rank.index()]) {
      if (action.kind != ActionKind::Forward) continue;
      if (action.stage.value == 0) inputs_[action.microbatch.index()] = device;
      if (action.stage.value + 1 == schedule.stages) targets_[action.microbatch.index()] = device;
    }
  }
}

namespace {

void bring(Tensors& tensors, const std::optional<at::Device>& device) {
  if (!device) return;
  for (at::Tensor& tensor : tensors)
    if (tensor.defined() && !tensor.requires_grad()) tensor = tensor.to(*device, /*non_blocking=*/true);
}

}  // namespace

void InputDevices::bring(std::vector<Microbatch>& microbatches) const {
  const at::NoGradGuard no_graph;
  for (std::size_t microbatch = 0; microbatch < microbatches.size(); ++microbatch) {
    penstock::bring(microbatches[microbatch].inputs, inputs_[microbatch]);
    penstock::bring(microbatches[microbatch].targets, targets_[microbatch]);
  }
}

}  // namespace penstock
