// How long all ranks take to stop when one fails: from the throw in a layer to the exception out of `Pipeline::step`.
// Layers wait in every action, so that most ranks sleep in one, or for a message, when it happens; what a rank is in is
// not cut off.
#include <algorithm>
#include <atomic>
#include <fmt/format.h>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

namespace penstock {
namespace {

constexpr int repetitions = 3;

// Passes its input on; in its pass number `passes` it notes the time and throws.
class Failing : public torch::nn::Module {
 public:
  Failing(int passes, const Clock* clock, std::atomic<double>* thrown_at)
      : passes_(passes), clock_(clock), thrown_at_(thrown_at) {}

  at::Tensor forward(const at::Tensor& input) {
    if (--passes_ == 0) {
      *thrown_at_ = clock_->now().count;
      throw std::runtime_error("fails, as it was told to");
    }
    return input.clone();
  }

 private:
  int passes_;
  const Clock* clock_;
  std::atomic<double>* thrown_at_;
};

// Milliseconds until step() throws after stage `failing` has failed with `microbatch`, M = P.
double stopped_after(const std::string& name, int ranks, int failing, int microbatch, double action_ms) {
  const VerifiedSchedule schedule = verify(make_schedule(name, ranks, ranks));
  const SteadyClock clock;
  std::atomic<double> thrown_at{0};
  Network network;
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  for (int stage = 0; stage < schedule->stages; ++stage) {
    settings.cut.push_back(static_cast<std::int64_t>(network.layers.size()));
    network.layers.push_back(waiting_layer({action_ms, action_ms, action_ms}));
    if (stage == failing)
      network.layers.push_back(
          layer_of<Failing>("failing", microbatch + 1, static_cast<const Clock*>(&clock), &thrown_at));
  }
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  Pipeline pipeline(network, schedule, settings);
  const at::Tensor samples = at::zeros({schedule->microbatches, 1});
  try {
    pipeline.step(samples, samples, 0, 0);
  } catch (const Error&) {
    return clock.now().count - thrown_at;
  }
  return -1;  // nothing failed: shown as such
}

void print_row(const std::string& name, int ranks, double action_ms) {
  const int stages = verify(make_schedule(name, ranks, ranks))->stages;
  std::vector<double> times;
  // The first, the middle and the last stage, with the first, a middle and the last microbatch.
  for (const int failing : {0, stages / 2, stages - 1})
    for (const int microbatch : {0, ranks / 2, ranks - 1})
      for (int repetition = 0; repetition < repetitions; ++repetition)
        times.push_back(stopped_after(name, ranks, failing, microbatch, action_ms));
  std::sort(times.begin(), times.end());
  fmt::print("| {} | {} | {} | {} | {:.2f} | {:.2f} | {:.2f} |\n", name, ranks, action_ms, times.size(), times.front(),
             median(times), times.back());
}

}  // namespace
}  // namespace penstock

int main() {
  fmt::print(
      "| schedule | ranks | ms of an action | failures | least, ms | median, ms | most, ms |\n"
      "|---|--:|--:|--:|--:|--:|--:|\n");
  for (const double action_ms : {0.0, 10.0})
    for (const char* name : {"1f1b", "zb-h1", "zb-v"})
      for (const int ranks : {4, 16, 64}) penstock::print_row(name, ranks, action_ms);
}
