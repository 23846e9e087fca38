// Minibatches on their way to the devices that read them, while the steps before are still at work.
#pragma once

#include <optional>
#include <vector>

#include "penstock/exec/rank.h"

#include "pipeline/pipeline_plan.h"

namespace penstock {

class InputDevices {
 public:
  // For the ranks of this process, from `first` up to `end`, excluded.
  InputDevices(const PipelinePlan& plan, RankId first, RankId end);

  // Enqueues copies of what is read on a device other than the host, on the calling thread's current streams. A tensor
  // that requires a gradient stays, since the gradient belongs to it.
  void bring(std::vector<Microbatch>& microbatches) const;

 private:
  // By microbatch; nothing for the host, and for what another process reads.
  std::vector<std::optional<at::Device>> inputs_;
  std::vector<std::optional<at::Device>> targets_;
};

}  // namespace penstock
