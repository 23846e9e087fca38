// Any file to the reader of plans; what it accepts must be a plan that a run may rely on, and be written so that it is
// read the same.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "penstock/plan/plan.h"
#include "penstock/plan/plan_layout.h"

#include "memory_bound.h"
#include "read_input.h"

namespace {

using namespace penstock;

void check(const Plan& plan) {
  if (plan.ranks < 1 || plan.replicas < 1 || plan.microbatches < 1 || plan.batch < 1) std::abort();
  if (plan.cut.empty() || plan.cut.front() != 0 || plan.cut.back() >= plan.layers) std::abort();
  if (!std::is_sorted(plan.cut.begin(), plan.cut.end()) || plan.recomputed.size() != plan.cut.size()) std::abort();
  for (const double value :
       {plan.prediction.step.count, plan.prediction.pipeline.count, plan.prediction.exchange.count,
        plan.prediction.update.count, plan.prediction.utilisation, plan.prediction.samples_per_second, plan.samples()})
    if (!std::isfinite(value) || value < 0) std::abort();
  for (const LayerTie& tie : plan.ties)
    if (tie.size.count < 0 || tie.owner.layer >= plan.layers || tie.copy.layer >= plan.layers) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string text = text_of_input(data, size);
  const UnnamedFile file(text);
  refuse_in_one_line([&] {
    Plan plan;
    {
      const MemoryBound bound(text.size());
      plan = load_plan(file.path());
    }
    check(plan);
    // One that needs a file of its own cannot be written to nowhere; of a large one the text is beyond the limits.
    constexpr std::size_t large = 1'000;
    if (needs_schedule_file(plan) || plan.cut.size() > large || plan.ties.size() > large) return;
    if (load_plan(UnnamedFile(to_toml(plan)).path()) != plan) std::abort();
  });
  return 0;
}
