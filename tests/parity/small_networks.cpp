#include "parity/small_networks.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "penstock/base/random.h"
#include "penstock/schedule/generators.h"

namespace penstock {

Network small_network(const std::string& name, double dropout) {
  if (name == "mlp") return make_mlp({20, 8, 16, 5, dropout});
  if (name == "convnet") {
    ConvnetSettings convnet;
    convnet.rows = convnet.columns = 8;
    convnet.layers = 6;
    convnet.width = 8;
    convnet.groups = 2;
    convnet.classes = 5;
    convnet.dropout = dropout;
    return make_convnet(convnet);
  }
  GptSettings gpt;
  gpt.vocabulary = 32;
  gpt.layers = 6;
  gpt.width = 16;
  gpt.heads = 2;
  gpt.context = 8;
  gpt.dropout = dropout;
  gpt.tied_head = name == "tied gpt";
  return make_gpt(gpt);
}

Minibatch small_minibatch(const std::string& name, std::int64_t samples, std::int64_t step) {
  at::Generator generator = at::detail::createCPUGenerator(mix_key({17, static_cast<std::uint64_t>(step)}));
  if (name == "mlp") return {at::randn({samples, 20}, generator), at::randint(5, {samples}, generator, at::kLong)};
  if (name == "convnet")
    return {at::rand({samples, 1, 8, 8}, generator), at::randint(5, {samples}, generator, at::kLong)};
  return {at::randint(32, {samples, 8}, generator, at::kLong), at::randint(32, {samples, 8}, generator, at::kLong)};
}

Trace train_small(const TraceSettings& settings) {
  return train_small(settings, make_schedule(settings.schedule, settings.stages, settings.microbatches));
}

Trace train_small(const TraceSettings& settings, const Schedule& schedule) {
  PipelineSettings pipeline_settings;
  pipeline_settings.threads_per_rank = 1;
  pipeline_settings.seed = 3;
  pipeline_settings.clip_norm = settings.clip;
  pipeline_settings.optimizer.kind = settings.optimizer;
  Pipeline pipeline(small_network(settings.network, settings.dropout), verify(schedule), pipeline_settings);
  Trace trace;
  for (int step = 0; step < settings.steps; ++step) {
    const Minibatch minibatch = small_minibatch(settings.network, settings.samples, step);
    const StepResult result = pipeline.step(minibatch.input, minibatch.target, step, 1e-2);
    trace.losses.push_back(result.loss);
    trace.norms.push_back(result.gradient_norm);
  }
  trace.weights = pipeline.weights();
  return trace;
}

void expect_same_bits(const Trace& expected, const Trace& got) {
  EXPECT_EQ(expected.losses, got.losses);
  EXPECT_EQ(expected.norms, got.norms);
  ASSERT_EQ(expected.weights.size(), got.weights.size());
  for (std::size_t index = 0; index < expected.weights.size(); ++index) {
    EXPECT_EQ(expected.weights[index].first, got.weights[index].first);
    EXPECT_TRUE(at::equal(expected.weights[index].second, got.weights[index].second)) << expected.weights[index].first;
  }
}

}  // namespace penstock
