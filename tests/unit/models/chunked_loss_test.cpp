// A large vocabulary's loss in chunks: the numbers of the whole logits, in less memory.
#include <algorithm>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "penstock/models/decoder.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

namespace penstock::chunked_loss_test {
namespace {

DecoderSettings small(std::int64_t vocabulary) {
  DecoderSettings settings;
  settings.vocabulary = vocabulary;
  settings.layers = 2;
  settings.width = 32;
  settings.heads = settings.key_value_heads = 2;
  settings.head_size = 16;
  settings.inner_width = 32;
  return settings;
}

struct Steps {
  std::vector<double> losses;
  std::vector<double> norms;
  Bytes peak;  // of the last stage's rank
};

Steps steps_of(const DecoderSettings& settings, std::int64_t samples, std::int64_t length, int steps) {
  PipelineSettings pipeline_settings;
  pipeline_settings.optimizer.kind = OptimizerKind::Sgd;
  Pipeline pipeline(make_decoder(settings), verify(make_schedule("1f1b", 2, 2)), pipeline_settings);
  const at::Tensor tokens =
      (at::arange(samples * (length + 1)) * 7919).remainder(settings.vocabulary).view({samples, length + 1});
  const at::Tensor targets = tokens.narrow(1, 1, length).clone();
  targets.select(1, 2).fill_(-100);
  Steps done;
  pipeline.begin_accounting();
  for (std::int64_t step = 0; step < steps; ++step) {
    const StepResult result = pipeline.step(tokens.narrow(1, 0, length), targets, step, 1e-1);
    done.losses.push_back(result.loss);
    done.norms.push_back(result.gradient_norm);
  }
  done.peak = pipeline.peak_memory().back();
  return done;
}

TEST(ChunkedLoss, HasTheNumbersOfTheWhole) {
  DecoderSettings settings = small(101);
  const Steps whole = steps_of(settings, 4, 9, 5);
  for (const std::int64_t rows : {1, 4, 17}) {
    settings.logits_at_once = rows * settings.vocabulary;
    const Steps chunked = steps_of(settings, 4, 9, 5);
    for (std::size_t step = 0; step < whole.losses.size(); ++step) {
      EXPECT_NEAR(chunked.losses[step] / whole.losses[step], 1, 1e-6);
      EXPECT_NEAR(chunked.norms[step] / whole.norms[step], 1, 1e-5);
    }
  }
}

TEST(ChunkedLoss, HalvesThePeakOfALargeVocabulary) {
  DecoderSettings settings = small(150'000);
  const Bytes chunked = steps_of(settings, 4, 256, 1).peak;
  settings.logits_at_once = std::int64_t{1} << 40;
  const Bytes whole = steps_of(settings, 4, 256, 1).peak;
  EXPECT_LT(2 * chunked.count, whole.count) << to_string(chunked) << " in place of " << to_string(whole);
}

}  // namespace
}  // namespace penstock::chunked_loss_test
