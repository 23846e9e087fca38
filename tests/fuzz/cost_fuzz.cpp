// Any file to the readers of costs, of stages and of layers; what they accept must be finite, and be written so that it
// is read the same.
#include <cmath>
#include <cstdlib>
#include <string>

#include "penstock/cost/cost.h"

#include "memory_bound.h"
#include "read_input.h"

namespace {

using namespace penstock;

void check(const LinkCost& link) {
  if (!(link.latency.count >= 0 && std::isfinite(link.latency.count) && link.bytes_per_millisecond > 0)) std::abort();
}

void check(const Cost& cost) {
  validate(cost);
  check(cost.default_link);
  for (const auto& [ranks, link] : cost.links) check(link);
  if (parse_cost(to_json(cost)) != cost) std::abort();
}

void check(const LayerCosts& costs) {
  validate(costs);
  check(costs.default_link);
  for (const auto& [ranks, link] : costs.links) check(link);
  if (parse_layer_costs(to_json(costs)) != costs) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string text = text_of_input(data, size);
  const UnnamedFile file(text);
  refuse_in_one_line([&] {
    Cost cost;
    {
      const MemoryBound bound(text.size());
      cost = load_cost(file.path());
    }
    check(cost);
  });
  refuse_in_one_line([&] {
    LayerCosts costs;
    {
      const MemoryBound bound(text.size());
      costs = load_layer_costs(file.path());
    }
    check(costs);
  });
  return 0;
}
