// Pipelines of layers that wait: nothing counts but the schedule, the links, and what the machine adds to every wait.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/exec/message_kind.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/measured_cost.h"
#include "penstock/transport/emulated_links.h"

namespace penstock {

inline Network waiting_network(const std::vector<WaitingTimes>& layers) {
  Network network;
  for (const WaitingTimes& times : layers) network.layers.push_back(waiting_layer(times));
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  return network;
}

/// Settings of one thread a rank whose links are those of `cost`, which must outlive the pipeline.
inline PipelineSettings emulating_links_of(const Cost& cost) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.links = [&cost](std::vector<std::unique_ptr<Transport>> ends) {
    const auto emulated = [&cost](RankId from, RankId to) {
      const LinkCost& link = link_between(cost, from, to);
      return EmulatedLink{link.latency, link.bytes_per_millisecond};
    };
    return with_emulated_links(std::move(ends), emulated, crosses_a_boundary);
  };
  return settings;
}

/// The timelines of so many steps of a minibatch of `batch` samples, after one to warm up.
inline std::vector<Timeline> waiting_steps(Pipeline& pipeline, std::int64_t batch, int steps) {
  const at::Tensor samples = at::zeros({batch, 1});
  std::vector<Timeline> measured;
  for (int step = 0; step <= steps; ++step) {
    Timeline timeline = pipeline.step(samples, samples, step, 0).timeline;
    if (step > 0) measured.push_back(std::move(timeline));
  }
  return measured;
}

/// What passes and messages take beside their times: dispatch, and that whoever waits is woken late. A profile of real
/// layers has it in its times.
struct WaitingOverheads {
  double forward_ms = 0;
  double input_backward_ms = 0;
  double weight_backward_ms = 0;
  double message_ms = 0;
};

/// Measured on so many ranks, with layers and links that are alike and a schedule of its own. Of a pass, however many
/// layers wait in it.
inline WaitingOverheads waiting_overheads(int ranks, bool split_backward, int layers_per_stage = 1) {
  constexpr Milliseconds latency{0.5};
  // On many ranks longer passes, or they would wake in each other's way as they do nowhere else.
  const double pass_ms = ranks <= 16 ? 5 : 15;
  const VerifiedSchedule schedule = verify(make_schedule(split_backward ? "zb-h1" : "1f1b", ranks, 2 * ranks));
  Cost links;
  links.default_link = {latency};
  const double wait_ms = pass_ms / layers_per_stage;
  const std::vector<WaitingTimes> layers(static_cast<std::size_t>(ranks * layers_per_stage),
                                         {wait_ms, wait_ms, wait_ms});
  Pipeline pipeline(waiting_network(layers), schedule, emulating_links_of(links));
  const Cost cost = measured_cost(waiting_steps(pipeline, schedule->microbatches, 3), schedule.get());
  // Not the first stage, whose input needs no gradient.
  const StageCost& last = cost.stages.back();
  return {last.forward.count - pass_ms, last.input_backward.count - pass_ms, last.weight_backward.count - pass_ms,
          ranks > 1 ? (cost.default_link.latency - latency).count : 0};
}

}  // namespace penstock
