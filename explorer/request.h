/// \file
/// A request's pipeline: which schedule, and what its stages and links cost.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"

namespace penstock::explorer {

using Json = nlohmann::ordered_json;

/// Pipelines up to these sizes are played: more would neither be drawn nor be there at once.
constexpr int most_ranks = 64;
constexpr int most_microbatches = 1024;
constexpr int most_stages_per_rank = 16;
constexpr std::int64_t most_passes = 200'000;

/// The longest text of a file that is looked at.
constexpr std::size_t longest_text = std::size_t{32} << 20U;

/// \throws Error (BadInput) for what is no JSON object, too deep or too long.
[[nodiscard]] Json parse_request(std::string_view text);

/// The value under `key`, or `otherwise` where there is none. \throws Error (BadInput) where it is out of range.
[[nodiscard]] int read_count(const Json& request, const char* key, int most, std::optional<int> otherwise = {});
/// 0 to 10^12.
[[nodiscard]] double read_number(const Json& request, const char* key, double otherwise);
/// Nothing where there is no such key. \throws Error (BadInput) for what is no text, or one that is too long.
[[nodiscard]] std::optional<std::string> read_text(const Json& request, const char* key);

/// A pipeline to be played.
struct PipelineRequest {
  std::string schedule;  ///< a family's name, or "schedule.csv"
  int stages_per_rank = 1;
  VerifiedSchedule verified;
  Cost cost;
};

/// How the samples of a minibatch make the time of a microbatch.
struct Samples {
  int batch = 0;             ///< 0: a microbatch costs the same, whatever it holds
  double fixed_samples = 0;  ///< what each microbatch costs beside its samples, in samples
};

[[nodiscard]] Samples read_samples(const Json& request);

/// The cost of a schedule of `stages`, of which a rank has `stages_per_rank`, from a request's `share`, `link` and
/// `memory_cap_bytes`. \throws Error (BadInput)
[[nodiscard]] Cost cost_of_share(const Json& request, const Schedule& schedule, int stages_per_rank);

/// The cost that the request gives to a schedule, in whichever form. \throws Error (BadInput)
[[nodiscard]] Cost read_cost(const Json& request, const Schedule& schedule, int stages_per_rank);

/// The schedule of a family, verified. `request` says how many ranks and microbatches. \throws Error (BadInput)
[[nodiscard]] PipelineRequest pipeline_of_family(const Json& request, const std::string& name, int microbatches,
                                                 std::optional<int> stages_per_rank);

/// The request's own pipeline. \throws Error (BadInput)
[[nodiscard]] PipelineRequest read_pipeline(const Json& request);

/// Holds the product of the three against `most_passes`. \throws Error (BadInput)
void check_passes(int ranks, int stages_per_rank, int microbatches);

}  // namespace penstock::explorer
