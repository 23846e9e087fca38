#include "penstock/cost/cost.h"

#include <cmath>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

#include "cost/fields.h"

namespace penstock {
namespace {

void require_duration(const std::string& path, double value) {
  if (value >= 0 && value <= largest_duration.count) return;
  throw bad_input(fmt::format("{} is {}", path, value),
                  fmt::format("a number of milliseconds, at least 0 and at most {:g}", largest_duration.count),
                  "correct the cost");
}

void validate(const std::string& path, const LinkCost& link) {
  require_duration(path + ".latency_ms", link.latency.count);
  if (!(link.bytes_per_millisecond > 0))
    throw bad_input(fmt::format("{}.bandwidth_bytes_per_ms is {}", path, link.bytes_per_millisecond),
                    "a number of bytes per millisecond, above 0",
                    "correct the cost, or leave it out where it is unlimited");
}

}  // namespace

const LinkCost& link_between(const Cost& cost, RankId from, RankId to) {
  const auto found = cost.links.find({from, to});
  return found == cost.links.end() ? cost.default_link : found->second;
}

Cost uniform_cost(int stages, const StageCost& stage, const LinkCost& link) {
  if (stages < 1)
    throw bad_input(fmt::format("a cost of {} stages", stages), "at least 1", "ask for one stage or more");
  Cost cost{std::vector<StageCost>(as_size(stages), stage), link, {}, {}};
  validate(cost);
  return cost;
}

void validate(const Cost& cost) {
  if (cost.stages.empty())
    throw bad_input("stages is empty", "one entry for each stage of the pipeline", "add the stages' costs");
  for (std::size_t stage = 0; stage < cost.stages.size(); ++stage) {
    for (const DurationField& field : duration_fields)
      require_duration(fmt::format("stages[{}].{}", stage, field.key), (cost.stages[stage].*field.member).count);
    for (const SizeField& field : size_fields)
      require_size(fmt::format("stages[{}].{}", stage, field.key), (cost.stages[stage].*field.member).count);
    const double share = cost.stages[stage].weight_activation_share;
    if (!is_share(share))
      throw bad_input(fmt::format("stages[{}].weight_activation_share is {}", stage, share),
                      fmt::format("a share from 0 to {}", largest_weight_activation_share), "correct the cost");
  }
  validate("link", cost.default_link);
  for (const auto& [pair, link] : cost.links)
    validate(fmt::format("links (from {} to {})", pair.first.value, pair.second.value), link);
  for (std::size_t rank = 0; rank < cost.memory_caps.size(); ++rank)
    require_size(fmt::format("memory_cap_bytes[{}]", rank), cost.memory_caps[rank].count);
  require_contention("contention", cost.contention);
}

}  // namespace penstock
