// Networks and minibatches that are small enough to train many times in a test.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/nn/networks.h"
#include "penstock/train/pipeline.h"

namespace penstock {

struct Minibatch {
  at::Tensor input;
  at::Tensor target;
};

// "gpt", "tied gpt", "mlp" or "convnet", of at least 8 layers, with dropout on where `dropout` is above 0.
[[nodiscard]] Network small_network(const std::string& name, double dropout);

// Drawn from a fixed seed and the step.
[[nodiscard]] Minibatch small_minibatch(const std::string& name, std::int64_t samples, std::int64_t step);

// What a training run leaves: every loss, and every weight at its end.
struct Trace {
  std::vector<double> losses;
  std::vector<double> norms;
  std::vector<std::pair<std::string, at::Tensor>> weights;
};

struct TraceSettings {
  std::string network = "gpt";
  int stages = 1;
  std::string schedule = "1f1b";
  int microbatches = 4;
  std::int64_t samples = 8;
  int steps = 20;
  double dropout = 0.1;
  double clip = 0.5;
  std::string optimizer = "adamw";
};

[[nodiscard]] Trace train_small(const TraceSettings& settings);
// The same with a schedule of one's own.
[[nodiscard]] Trace train_small(const TraceSettings& settings, const Schedule& schedule);

void expect_same_bits(const Trace& expected, const Trace& got);

}  // namespace penstock
