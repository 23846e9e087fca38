#include "request.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"
#include "penstock/cost/layers_at_size.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/generators.h"

namespace penstock::explorer {
namespace {

constexpr const char* correct_it = "correct the request";

Error refuse(const char* key, const Json& value, const std::string& expected) {
  return bad_input(fmt::format("{} is {}", key, shortened(value.dump(-1, ' ', true, Json::error_handler_t::replace))),
                   expected, correct_it);
}

const ScheduleFamily* family_of(const std::string& name) {
  const auto families = schedule_families();
  const auto* const found = std::find_if(families.data(), families.data() + families.size(),
                                         [&](const ScheduleFamily& family) { return family.name == name; });
  return found == families.data() + families.size() ? nullptr : found;
}

bool has_split_backward(const Schedule& schedule) {
  for (const auto& row : schedule.actions)
    for (const Action& action : row)
      if (action.kind == ActionKind::InputBackward) return true;
  return false;
}

Bytes part_of(Bytes bytes, double factor) {
  return {static_cast<std::int64_t>(std::llround(static_cast<double>(bytes.count) * factor))};
}

/// Layers cut so that the slowest stage is fastest, in nanoseconds, which are whole.
Cost cost_of_layers(const Json& request, const std::string& text, const Schedule& schedule) {
  const LayerCosts costs = parse_layer_costs(text, "cost.json");
  const Samples samples = read_samples(request);
  if (samples.batch < 1)
    throw bad_input("costs of layers without a number of samples", "batch, the samples of a minibatch", correct_it);
  const double in_microbatch = static_cast<double>(samples.batch) / schedule.microbatches;
  const LayersAtSize at_size(costs, in_microbatch);
  CutRun run;
  run.split_backward = has_split_backward(schedule);
  for (const auto& holders : schedule.placement.holders) run.ranks.push_back(holders.front().value);
  std::vector<std::int64_t> weights;
  weights.reserve(at_size.layers());
  constexpr double nanoseconds = 1e6;
  for (std::size_t layer = 0; layer < at_size.layers(); ++layer)
    weights.push_back(
        std::llround(at_size.time(layer, layer + 1, {.split_backward = run.split_backward}).count * nanoseconds));
  return cost_of_cut(costs, balanced_cut(weights, schedule.stages), in_microbatch, run);
}

}  // namespace

Json parse_request(std::string_view text) {
  check_json_limits(text, "the request", {.deepest = 16, .most_values = 100'000});
  Json request = Json::parse(text, nullptr, false);
  if (!request.is_object()) throw bad_input("a request that is no JSON object", "an object with `ask`", correct_it);
  return request;
}

int read_count(const Json& request, const char* key, int most, std::optional<int> otherwise) {
  const auto found = request.find(key);
  if (found == request.end() || found->is_null()) {
    if (otherwise) return *otherwise;
    throw bad_input(fmt::format("{} is missing", key), fmt::format("a whole number, 1 to {}", most), correct_it);
  }
  if (!found->is_number_integer() || *found < 1 || *found > most)
    throw refuse(key, *found, fmt::format("a whole number, 1 to {}", most));
  return found->get<int>();
}

double read_number(const Json& request, const char* key, double otherwise) {
  const auto found = request.find(key);
  if (found == request.end() || found->is_null()) return otherwise;
  constexpr double most = 1e12;
  if (!found->is_number() || !(found->get<double>() >= 0 && found->get<double>() <= most))
    throw refuse(key, *found, "a number, 0 to 1e12");
  return found->get<double>();
}

std::optional<std::string> read_text(const Json& request, const char* key) {
  const auto found = request.find(key);
  if (found == request.end() || found->is_null()) return std::nullopt;
  if (!found->is_string()) throw refuse(key, *found, "a text");
  auto text = found->get<std::string>();
  if (text.size() > longest_text)
    throw bad_input(fmt::format("{} of {} bytes", key, text.size()), fmt::format("at most {} bytes", longest_text),
                    "take a shorter file");
  return text;
}

Samples read_samples(const Json& request) {
  constexpr int most_samples = 1 << 20;
  Samples samples;
  if (!request.contains("batch") || request["batch"].is_null()) return samples;
  samples.batch = read_count(request, "batch", most_samples);
  samples.fixed_samples = read_number(request, "fixed_samples", 0);
  return samples;
}

Cost cost_of_share(const Json& request, const Schedule& schedule, int stages_per_rank) {
  // The reader of cost files is the judge of every value.
  Json file = {{"stages", Json::array()}};
  file["stages"].push_back(request.value("share", Json::object()));
  if (request.contains("link")) file["link"] = request["link"];
  const Cost read = parse_cost(file.dump(-1, ' ', false, Json::error_handler_t::replace), "the request");
  StageCost stage = read.stages.front();
  const Samples samples = read_samples(request);
  const double in_microbatch = samples.batch > 0 ? static_cast<double>(samples.batch) / schedule.microbatches : 1.0;
  const double time = (samples.batch > 0 ? in_microbatch + samples.fixed_samples : 1.0) / stages_per_rank;
  stage.forward = stage.forward * time;
  stage.input_backward = stage.input_backward * time;
  stage.weight_backward = stage.weight_backward * time;
  stage.activation = part_of(stage.activation, in_microbatch / stages_per_rank);
  stage.boundary = part_of(stage.boundary, in_microbatch);
  const double part = 1.0 / stages_per_rank;
  stage.parameter = part_of(stage.parameter, part);
  stage.gradient = part_of(stage.gradient, part);
  stage.optimizer = part_of(stage.optimizer, part);
  Cost cost = uniform_cost(schedule.stages, stage, read.default_link);
  const double cap = read_number(request, "memory_cap_bytes", 0);
  if (cap > 0)
    cost.memory_caps.assign(static_cast<std::size_t>(schedule.ranks()), {static_cast<std::int64_t>(std::llround(cap))});
  return cost;
}

Cost read_cost(const Json& request, const Schedule& schedule, int stages_per_rank) {
  if (const auto text = read_text(request, "cost")) return parse_cost(*text, "cost.json");
  if (const auto text = read_text(request, "layers")) return cost_of_layers(request, *text, schedule);
  return cost_of_share(request, schedule, stages_per_rank);
}

void check_passes(int ranks, int stages_per_rank, int microbatches) {
  const auto passes = static_cast<std::int64_t>(ranks) * stages_per_rank * microbatches;
  if (passes > most_passes)
    throw bad_input(fmt::format("{} forward passes", passes), fmt::format("at most {}", most_passes),
                    "take fewer ranks, stages or microbatches");
}

PipelineRequest pipeline_of_family(const Json& request, const std::string& name, int microbatches,
                                   std::optional<int> stages_per_rank) {
  const ScheduleFamily* family = family_of(name);
  // A family without a choice says what it has; a wish of another one's does not hold for it.
  if (family != nullptr && !family->stages_per_rank_varies) stages_per_rank.reset();
  const int per_rank = stages_per_rank.value_or(family == nullptr ? 1 : family->stages_per_rank);
  const int ranks = read_count(request, "ranks", most_ranks);
  check_passes(ranks, per_rank, microbatches);
  VerifiedSchedule verified = verify(make_schedule(name, ranks, microbatches, stages_per_rank));
  Cost cost = read_cost(request, verified.get(), per_rank);
  return {name, per_rank, std::move(verified), std::move(cost)};
}

PipelineRequest read_pipeline(const Json& request) {
  if (const auto csv = read_text(request, "csv")) {
    // What is only looked at may add gradients up in any order, as for the command line.
    VerifiedSchedule verified = verify(parse_schedule(*csv), {.accumulation = Accumulation::AnyOrder});
    const int per_rank = std::max(1, verified->stages / verified->ranks());
    check_passes(verified->ranks(), per_rank, verified->microbatches);
    Cost cost = read_cost(request, verified.get(), per_rank);
    return {"schedule.csv", per_rank, std::move(verified), std::move(cost)};
  }
  const auto name = read_text(request, "schedule");
  if (!name) throw bad_input("a request without a schedule", "schedule or csv", correct_it);
  std::optional<int> stages_per_rank;
  if (request.contains("stages_per_rank") && !request["stages_per_rank"].is_null())
    stages_per_rank = read_count(request, "stages_per_rank", most_stages_per_rank);
  return pipeline_of_family(request, *name, read_count(request, "microbatches", most_microbatches), stages_per_rank);
}

}  // namespace penstock::explorer
