#include "penstock/train/planning.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <numeric>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "penstock/base/clock.h"
#include "penstock/base/error.h"
#include "penstock/base/parse_bytes.h"
#include "penstock/base/quantile.h"
#include "penstock/base/random.h"
#include "penstock/data/order.h"
#include "penstock/nn/ties.h"
#include "penstock/plan/plan_file.h"
#include "penstock/profile/profile.h"
#include "penstock/train/layer_update.h"
#include "penstock/train/pipeline.h"
#include "penstock/train/step_overhead.h"

#include "train/automatic.h"
#include "train/job.h"
#include "train/model.h"
#include "train/run_folder.h"
#include "train/worker.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

void tell(const Note& note, const std::string& line) {
  if (note) note(line);
}

// What the numbers of a profile depend on beside the machine.
Description describe_model(const TrainSettings& settings, const DataDescription& data) {
  Description model{{"name", settings.model},
                    {"layers", std::to_string(settings.layers)},
                    {"width", std::to_string(settings.width)},
                    {"dropout", fmt::format("{}", settings.dropout)},
                    {"optimizer", settings.optimizer},
                    {"precision", settings.precision}};
  if (data.kind == DataKind::Own) return model;
  if (data.kind == DataKind::Images) {
    model["input"] = fmt::format("{}x{}x{}", data.channels, data.rows, data.columns);
    model["classes"] = std::to_string(data.classes);
  } else {
    model["heads"] = std::to_string(settings.heads);
    model["context"] = std::to_string(settings.context);
    model["vocabulary"] = std::to_string(data.vocabulary);
  }
  return model;
}

// Those that microbatches of the request can have, and between them a doubling.
std::vector<std::int64_t> sizes_of(const PlanRequest& request) {
  std::set<std::int64_t> sizes;
  for (const int count : request.microbatches) {
    if (count < 1 || count > request.batch) continue;  // make_plans has the words for that
    sizes.insert({request.batch / count, (request.batch + count - 1) / count});
  }
  if (!request.microbatches.empty()) return {sizes.begin(), sizes.end()};
  // One microbatch for several ranks is no pipeline.
  const std::int64_t most = request.ranks > 1 ? (request.batch + 1) / 2 : request.batch;
  for (std::int64_t size = 1; size < most; size *= 2) sizes.insert(size);
  sizes.insert(most);
  return {sizes.begin(), sizes.end()};
}

void check_sizes(const PlanRequest& request, std::int64_t layers) {
  constexpr std::int64_t most_batch = std::int64_t{1} << 31;
  if (request.ranks < 1 || request.ranks > layers)
    throw bad_input(fmt::format("--ranks {}", request.ranks), fmt::format("1 to {}, the number of layers", layers),
                    "change --ranks");
  if (request.batch < 1 || request.batch > most_batch)
    throw bad_input(fmt::format("--batch {}", request.batch), fmt::format("1 to {}", most_batch), "change --batch");
  for (const int count : request.microbatches)
    if (count < 1 || count > request.batch)
      throw bad_input(fmt::format("--microbatches {}", count),
                      fmt::format("1 to {}, the samples of the batch", request.batch), "change --microbatches");
}

std::uint64_t fingerprint(const Description& model, const Description& machine,
                          const std::vector<std::int64_t>& sizes) {
  // Of another form of the measurement, another file.
  constexpr std::uint64_t version = 2;
  std::uint64_t key = version;
  const auto add = [&](const std::string& text) {
    for (const char letter : text) key = mix_key({key, static_cast<unsigned char>(letter)});
    key = mix_key({key, 256});
  };
  for (const Description* description : {&model, &machine})
    for (const auto& [name, value] : *description) {
      add(name);
      add(value);
    }
  for (const std::int64_t size : sizes) key = mix_key({key, static_cast<std::uint64_t>(size)});
  return key;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return value == nullptr ? "" : value;
}

fs::path cache_folder() {
  const std::string cache = environment("XDG_CACHE_HOME");
  if (!cache.empty()) return fs::path(cache) / "penstock";
  const std::string home = environment("HOME");
  return (home.empty() ? fs::temp_directory_path() : fs::path(home) / ".cache") / "penstock";
}

bool covers(const LayerCosts& costs, const std::vector<std::int64_t>& sizes) {
  return std::all_of(costs.layers.begin(), costs.layers.end(), [&](const LayerCost& layer) {
    return std::all_of(sizes.begin(), sizes.end(), [&](std::int64_t size) {
      return std::any_of(layer.sizes.begin(), layer.sizes.end(),
                         [&](const LayerAtSize& at) { return at.samples == size; });
    });
  });
}

// A name of a network of one's own says nothing of its layers: what was measured of it lies with the run.
fs::path file_of_costs(const TrainSettings& settings, const Description& model, const Description& machine,
                       const std::vector<std::int64_t>& sizes) {
  if (!settings.cost.empty()) return settings.cost;
  if (settings.model == own_model) return fs::path(settings.out) / "cost.json";
  return cache_folder() / fmt::format("cost-{:016x}.json", fingerprint(model, machine, sizes));
}

// Files of before know no ties.
bool knows_ties(const LayerCosts& costs, const Network& network) {
  std::ptrdiff_t count = 0;
  for (const TieGroup& group : tie_groups(network.ties))
    count += std::count_if(group.members.begin(), group.members.end(),
                           [&](const ParameterAddress& member) { return member.layer != group.owner.layer; });
  return std::ssize(costs.ties) == count;
}

// Nothing where there is no file, or one that has to be measured again.
std::optional<LayerCosts> found_costs(const fs::path& file, bool named, const Description& model,
                                      const Description& machine, const std::vector<std::int64_t>& sizes,
                                      const Network& network) {
  std::error_code ignored;
  if (!fs::exists(file, ignored) || (!named && model.at("name") == own_model)) return std::nullopt;
  try {
    LayerCosts costs = load_layer_costs(file);
    require_description(costs.model, model, "model", file.string());
    require_description(costs.machine, machine, "machine", file.string());
    if (covers(costs, sizes) && knows_ties(costs, network)) return costs;
  } catch (const Error&) {
    // What a user has named is theirs: it is not written over. The cache may be.
    if (named) throw;
  }
  return std::nullopt;
}

ProfileSettings profile_settings(const TrainSettings& settings, const PlanRequest& request,
                                 const PipelineSettings& pipeline, const Samples& samples) {
  ProfileSettings profile;
  profile.ranks = request.ranks;
  profile.devices = pipeline.devices;
  profile.threads_per_rank = settings.threads_per_rank > 0 ? settings.threads_per_rank : default_threads(request.ranks);
  profile.sizes = sizes_of(request);
  profile.precision = pipeline.precision;
  profile.seed = settings.seed;
  profile.microbatch = [&samples, seed = settings.seed](std::int64_t count) {
    return split_minibatch(samples.minibatch(samples_of_step(samples.size(), 0, count, seed)), 1).front();
  };
  profile.optimizer = [optimizer = pipeline.optimizer](const Layer& layer) { return layer_update(optimizer, layer); };
  return profile;
}

// The settings as one stage has them: what they leave to a plan is none of the network's.
PipelineSettings one_stage_settings(TrainSettings settings, const Job& job) {
  settings.stages = 1;
  settings.cut = "uniform";
  settings.recompute = "none";
  return make_pipeline_settings(settings, job);
}

Recomputation recomputation_of(const std::string& word) {
  if (word == "auto") return Recomputation::WhereNeeded;
  return word == "full" ? Recomputation::Full : Recomputation::None;
}

std::string cut_words(const Cut& cut) {
  return cut.size() == 1 ? "uniform" : fmt::format("{}", fmt::join(cut.begin() + 1, cut.end(), ","));
}

PlanRequest request_of(const TrainSettings& settings) {
  PlanRequest request;
  request.ranks = settings.ranks > 0 ? settings.ranks : static_cast<int>(settings.devices.size());
  request.batch = settings.batch;
  if (!settings.memory_limit.empty()) request.memory = parse_bytes("--memory-limit", settings.memory_limit);
  if (settings.schedule != "auto") request.schedules = {settings.schedule};
  if (settings.microbatches != automatic_microbatches) request.microbatches = {settings.microbatches};
  request.recomputation = recomputation_of(settings.recompute);
  request.most_plans = 1;
  return request;
}

// A cut that is not automatic has as many stages as were asked for, or a stage a rank.
std::optional<Cut> cut_of(TrainSettings settings, int ranks, const Job& job) {
  if (settings.cut == "auto") return std::nullopt;
  if (settings.cut == "uniform" || settings.cut == "parameters")
    settings.stages = std::max(settings.stages, ranks);
  else
    settings.stages = static_cast<int>(std::count(settings.cut.begin(), settings.cut.end(), ',')) + 2;
  settings.recompute = "none";
  return make_pipeline_settings(settings, job).cut;
}

}  // namespace

MeasuredCosts measured_costs(const TrainSettings& settings, const PlanRequest& request, const Note& note) {
  return measured_costs(settings, job_of(settings), request, note);
}

MeasuredCosts measured_costs(const TrainSettings& settings, const Job& job, const PlanRequest& request,
                             const Note& note) {
  check_sizes(request, std::ssize(job.network.layers));
  const PipelineSettings pipeline = one_stage_settings(settings, job);
  const ProfileSettings profile = profile_settings(settings, request, pipeline, *job.train);
  const Description model = describe_model(settings, job.data);
  const Description machine = describe_machine(profile);
  MeasuredCosts measured;
  measured.file = file_of_costs(settings, model, machine, profile.sizes);
  if (auto found = found_costs(measured.file, !settings.cost.empty(), model, machine, profile.sizes, job.network)) {
    measured.costs = std::move(*found);
    measured.reused = true;
    tell(note, fmt::format("the layers were measured before: {}", measured.file.string()));
    return measured;
  }
  tell(note, fmt::format("measuring the layers on {} at once, in microbatches of {}", counted(profile.ranks, "rank"),
                         fmt::join(profile.sizes, ", ")));
  const SteadyClock clock;
  const Milliseconds start = clock.now();
  measured.costs = profile_layers(job.network, profile);
  measured.costs.step_overhead = measured_step_overhead(profile.ranks, profile.threads_per_rank);
  measured.costs.model = model;
  measured.costs.machine = machine;
  std::error_code ignored;
  if (measured.file.has_parent_path()) fs::create_directories(measured.file.parent_path(), ignored);
  save_layer_costs(measured.costs, measured.file);
  tell(note, fmt::format("measured in {}: {}", to_string(clock.now() - start), measured.file.string()));
  return measured;
}

MeasuredPlan try_plan(const TrainSettings& settings, const Plan& plan, int steps) {
  constexpr int warm_up = 2;
  TrainSettings own = settings;
  own.stages = plan.stages();
  own.microbatches = plan.microbatches;
  own.batch = plan.batch;
  own.cut = cut_words(plan.cut);
  own.recompute = recompute_words(plan);
  const Job job = job_of(own);
  Pipeline pipeline(job.network, schedule_of(plan), make_pipeline_settings(own, job));
  const SteadyClock clock;
  std::vector<double> step_ms;
  std::vector<double> utilisations;
  for (int step = 0; step < warm_up + steps; ++step) {
    const Minibatch minibatch = job.train->minibatch(samples_of_step(job.train->size(), step, own.batch, own.seed));
    const Milliseconds start = clock.now();
    const StepResult result = pipeline.step(split_minibatch(minibatch, own.microbatches), {step, own.learning_rate});
    if (step < warm_up) continue;
    step_ms.push_back((clock.now() - start).count);
    utilisations.push_back(utilisation(result.timeline));
  }
  return {{quantile(step_ms, 0.5)}, quantile(utilisations, 0.5), pipeline.peak_memory()};
}

TrainSettings choose_automatic(const TrainSettings& settings, const Note& note) {
  // What refuses the folder is known before the data is opened.
  static_cast<void>(RunFolder(settings.out, settings.resume));
  return choose_automatic(settings, job_of(settings), note);
}

TrainSettings choose_automatic(const TrainSettings& settings, const Job& job, const Note& note) {
  // What refuses the folder is known before anything is measured.
  static_cast<void>(RunFolder(settings.out, settings.resume));
  PlanRequest request = request_of(settings);
  check_sizes(request, std::ssize(job.network.layers));
  request.cut = cut_of(settings, request.ranks, job);
  const MeasuredCosts measured = measured_costs(settings, job, request, note);
  Plan plan = make_plans(measured.costs, request).plans.front();
  std::error_code ignored;
  plan.costs_file = fs::absolute(measured.file, ignored).string();
  std::error_code failure;
  fs::create_directories(settings.out, failure);
  if (failure)
    throw bad_input(fmt::format("cannot make --out {}: {}", settings.out, failure.message()),
                    "a folder that can be made", "choose another --out");
  const fs::path file = fs::path(settings.out) / "plan.toml";
  save_plan(plan, file);
  TrainSettings chosen = settings;
  apply_toml(chosen, file);
  chosen.plan = file.string();
  tell(note, fmt::format("planned: {}, {}, cut {}: {} a step predicted ({})", plan.schedule,
                         counted(plan.microbatches, "microbatch"), cut_words(plan.cut), to_string(plan.prediction.step),
                         file.string()));
  return chosen;
}

}  // namespace penstock
