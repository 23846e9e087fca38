// Networks and minibatches that are small enough to train many times in a test.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"

namespace penstock {

struct TraceSettings {
  // "gpt", "tied gpt", "mlp", "convnet", "batch norm", or "skips": tensors that need no gradient, that are absent or
  // whole numbers, and skips over one layer and over many.
  std::string network = "gpt";
  int stages = 1;
  std::string schedule = "1f1b";
  int microbatches = 4;
  std::int64_t samples = 8;  // shared out among the microbatches
  int steps = 20;
  double dropout = 0.1;
  double clip = 0.5;
  std::string optimizer = "adamw";
  bool masked = false;   // gpt: some targets do not count, in some microbatches most of them
  bool lengths = false;  // gpt: sequences of other lengths in every microbatch and step
  Cut cut;               // empty: uniform
  std::vector<bool> recompute;
  Precision precision = Precision::Float32;
  std::optional<bool> post_validation = false;
  int steps_in_flight = 1;  // as many are submitted before the first is waited for
  double loss_factor = 1;
  std::vector<at::Device> devices;
  bool offload = false;
  int replicas = 1;  // of pipelines of `stages`
  int gradient_tree = 0;
  bool shard = false;
  Bytes bucket{4 << 20};
};

// Of the families of schedules, those with backward passes.
[[nodiscard]] std::vector<std::string_view> trained_families();

// Of at least 8 layers, with dropout on where `dropout` is above 0.
[[nodiscard]] Network small_network(const std::string& name, double dropout);

// Drawn from a fixed seed and the step.
[[nodiscard]] std::vector<Microbatch> small_minibatch(const TraceSettings& settings, std::int64_t step);

// What a training run leaves: every loss, norm and weight.
struct Trace {
  std::vector<double> losses;
  std::vector<double> norms;  // not finite where a step was skipped
  std::vector<std::vector<MicrobatchLoss>> by_microbatch;
  int skipped = 0;
  int updated_first = 0;  // no part of the comparison
  int taken_back = 0;     // no part of the comparison
  std::vector<std::pair<std::string, at::Tensor>> weights;
};

[[nodiscard]] Trace train_small(const TraceSettings& settings);
// The same with a schedule of one's own.
[[nodiscard]] Trace train_small(const TraceSettings& settings, const Schedule& schedule);

void expect_same_bits(const Trace& expected, const Trace& got);
// Within one in a million: for what adds up the same numbers in another order.
void expect_close(const Trace& expected, const Trace& got);
void expect_close_losses(const Trace& expected, const Trace& got);

}  // namespace penstock
