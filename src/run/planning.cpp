#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <numeric>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"
#include "penstock/base/random.h"
#include "penstock/base/types.h"
#include "penstock/cost/comparable.h"
#include "penstock/data/order.h"
#include "penstock/nn/ties.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/pipeline/step_overhead.h"
#include "penstock/plan/plan.h"
#include "penstock/plan/plan_layout.h"
#include "penstock/profile/profile.h"
#include "penstock/run/train.h"

#include "run/automatic.h"
#include "run/job.h"
#include "run/model.h"
#include "run/run_folder.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

void report(const Note& note, const std::string& line) {
  if (note) note(line);
}

// What it costs does not depend on the weights, which need not be there.
Job job_to_measure(TrainSettings settings) {
  settings.model.from_scratch = true;
  return job_of(settings);
}

// What the numbers of a profile depend on beside the machine.
Description describe_model(const TrainSettings& settings, const Job& job) {
  const DataDescription& data = job.data;
  Description model{
      {"name", word_of(settings.model.kind.kind())},       {"layers", std::to_string(settings.model.layers)},
      {"width", std::to_string(settings.model.width)},     {"dropout", fmt::format("{}", settings.model.dropout)},
      {"optimizer", word_of(settings.training.optimizer)}, {"precision", word_of(settings.training.precision)}};
  if (settings.training.weights != Precision::Float32) model["weights"] = word_of(settings.training.weights);
  if (data.kind == DataKind::Own) return model;
  if (!job.shape.empty()) model["shape"] = job.shape;
  if (!settings.model.freeze.empty()) model["freeze"] = to_text(settings.model.freeze);
  if (data.kind == DataKind::Images) {
    model["input"] = fmt::format("{}x{}x{}", data.channels, data.rows, data.columns);
    model["classes"] = std::to_string(data.classes);
  } else {
    model["heads"] = std::to_string(settings.model.heads);
    model["context"] = std::to_string(settings.data.context);
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
    throw bad_input(fmt::format("`ranks` is {}", request.ranks), fmt::format("1 to {}, the number of layers", layers),
                    "change `ranks`");
  if (request.batch < 1 || request.batch > most_batch)
    throw bad_input(fmt::format("`batch` is {}", request.batch), fmt::format("1 to {}", most_batch), "change `batch`");
  for (const int count : request.microbatches)
    if (count < 1 || count > request.batch)
      throw bad_input(fmt::format("`microbatches` is {}", count),
                      fmt::format("1 to {}, the samples of the batch", request.batch), "change `microbatches`");
}

std::uint64_t fingerprint(const Description& model, const Description& machine,
                          const std::vector<std::int64_t>& sizes) {
  // Another form of the measurement gets another file.
  constexpr std::uint64_t version = 4;
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
  if (!settings.planning.cost.empty()) return settings.planning.cost;
  if (settings.model.kind == ModelKind::Own) return fs::path(settings.output.folder) / "cost.json";
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

// "3 days ago, median known to 1.2 %".
std::string how_measured(const LayerCosts& costs) {
  if (!costs.measured) return "nobody knows when";
  const auto age = wall_time_now() - costs.measured->at;
  // A clock that was set back in between.
  const Milliseconds passed{std::max(0.0, static_cast<double>(age.count()))};
  return fmt::format("{} ago, median known to {:.1f} %", to_string(passed), costs.measured->spread * 100);
}

void tell_reused(const MeasuredCosts& measured, const Note& note) {
  constexpr std::chrono::days old{7};
  const auto& how = measured.costs.measured;
  const bool doubtful = !how || how->spread > noisy_spread || wall_time_now() - how->at > old;
  report(note, fmt::format("the layers were measured before ({}): {}{}", how_measured(measured.costs),
                           measured.file.string(), doubtful ? "; with remeasure they are measured again" : ""));
}

// Nothing where there is no file, or one that has to be measured again.
std::optional<LayerCosts> found_costs(const fs::path& file, bool named, const Description& model,
                                      const Description& machine, const std::vector<std::int64_t>& sizes,
                                      const Network& network) {
  std::error_code ignored;
  if (!fs::exists(file, ignored) || (!named && model.at("name") == word_of(ModelKind::Own))) return std::nullopt;
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
  profile.threads_per_rank = threads_of(settings.layout, request.ranks);
  profile.sizes = sizes_of(request);
  profile.precision = pipeline.precision;
  profile.weights = pipeline.weights;
  profile.seed = settings.training.seed;
  profile.microbatch = [&samples, seed = settings.training.seed](std::int64_t count) {
    return split_minibatch(samples.minibatch(samples_of_step(samples.size(), 0, count, seed)), 1).front();
  };
  profile.optimizer = pipeline.optimizer;
  return profile;
}

// The settings as one stage has them: what they leave to a plan is none of the network's.
PipelineSettings one_stage_settings(TrainSettings settings, const Job& job) {
  settings.layout.stages = 1;
  settings.layout.cut = CutChoice::Uniform;
  settings.layout.recompute = Recompute::None;
  return make_pipeline_settings(settings, job);
}

// Without ranks.
PlanRequest request_of(const TrainSettings& settings) {
  PlanRequest request;
  const Layout& layout = settings.layout;
  request.batch = settings.training.batch;
  request.memory = layout.memory_limit;
  if (!layout.schedule.is_automatic()) request.schedules = {layout.schedule.text()};
  if (!layout.microbatches.is_automatic()) request.microbatches = {layout.microbatches.count()};
  request.gradient_tree = layout.gradient_tree;
  request.recomputation = recomputation_of(layout.recompute);
  // Where nobody says, ranks go ahead if that is faster and there is room for it.
  const TrainSettings::Training& training = settings.training;
  request.steps_overlap = training.steps_in_flight > 1 &&
                          (training.post_validation.value_or(!layout.memory_limit && layout.devices.empty()) ||
                           (training.clip == 0 && training.precision != Precision::Float16));
  request.most_plans = 1;
  return request;
}

// The ranks that were asked for, or one for each device, or for each stage.
int given_ranks(const Layout& layout) {
  if (!layout.ranks.are_the_schedules()) return layout.ranks.count();
  return layout.devices.empty() ? layout.stages : static_cast<int>(layout.devices.size());
}

// A cut that is not automatic has as many stages as were asked for, or a stage a rank.
std::optional<Cut> cut_of(TrainSettings settings, int ranks, const Job& job) {
  Layout& layout = settings.layout;
  if (layout.cut.is_automatic()) return std::nullopt;
  if (layout.cut.kind() == CutChoice::Explicit)
    layout.stages = static_cast<int>(layout.cut.first_layers().size()) + 1;
  else
    layout.stages = std::max(layout.stages, ranks);
  layout.recompute = Recompute::None;
  return make_pipeline_settings(settings, job).cut;
}

// The powers of two up to the most ranks that this machine or its devices have room for, and that number.
std::vector<int> candidate_ranks(const TrainSettings& settings, std::int64_t layers) {
  const std::int64_t cores = std::max(1U, std::thread::hardware_concurrency());
  const std::int64_t places = settings.layout.devices.empty() ? cores : std::ssize(settings.layout.devices);
  const auto most = static_cast<int>(std::min(places, layers));
  std::vector<int> ranks;
  for (int count = 1; count < most; count *= 2) ranks.push_back(count);
  ranks.push_back(most);
  return ranks;
}

// Costs of several numbers of ranks are of several machines.
TrainSettings settings_on(const TrainSettings& settings, int ranks) {
  TrainSettings own = settings;
  own.layout.ranks = ranks;
  if (settings.layout.devices.empty()) own.layout.threads_per_rank = default_threads(ranks);
  fs::path cost = settings.planning.cost;
  if (cost.empty() && settings.model.kind == ModelKind::Own) {
    // A file of an earlier start may be of another network of that name.
    cost = fs::path(settings.output.folder) / "cost.json";
    own.planning.remeasure = true;
  }
  if (!cost.empty())
    own.planning.cost =
        (cost.parent_path() / fmt::format("{}-ranks-{}{}", cost.stem().string(), ranks, cost.extension().string()))
            .string();
  return own;
}

bool is_too_noisy(const PlanOnRanks& planned) {
  const auto& how = planned.measured.costs.measured;
  return how && how->spread >= incomparable_spread;
}

// The fastest first; or, where nobody can tell, the most ranks.
void order_by_speed(std::vector<PlanOnRanks>& plans, const Note& note) {
  const bool is_noisy = std::any_of(plans.begin(), plans.end(), is_too_noisy);
  std::stable_sort(plans.begin(), plans.end(), [&](const PlanOnRanks& a, const PlanOnRanks& b) {
    return is_noisy ? a.plan.ranks * a.plan.replicas > b.plan.ranks * b.plan.replicas
                    : a.plan.prediction.step < b.plan.prediction.step;
  });
  if (!is_noisy || plans.size() < 2) return;
  const Plan& first = plans.front().plan;
  report(note, fmt::format("the machine is too busy to compare numbers of ranks: the plan is for all {}; plan "
                           "again when the machine does nothing else, or name `ranks`",
                           counted(std::int64_t{first.ranks} * first.replicas, "rank")));
}

// Each of several numbers of ranks has a plan of its own.
std::vector<PlanOnRanks> best_by_ranks(const TrainSettings& settings, const std::vector<int>& ranks, const Note& note,
                                       const std::function<PlanOnRanks(const TrainSettings& on, int ranks)>& plan) {
  std::vector<PlanOnRanks> plans;
  std::exception_ptr refusal;
  for (const int count : ranks) {
    try {
      plans.push_back(plan(settings_on(settings, count), count));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::BadInput) throw;
      refusal = std::current_exception();
    }
  }
  if (plans.empty()) std::rethrow_exception(refusal);
  order_by_speed(plans, note);
  return plans;
}

PlanOnRanks plan_on(const PlanRequest& request, MeasuredCosts measured) {
  PlanOnRanks planned{make_plans(measured.costs, request).plans.front(), std::move(measured)};
  std::error_code ignored;
  planned.plan.costs_file = fs::absolute(planned.measured.file, ignored).string();
  planned.plan.threads_per_rank = planned.measured.threads_per_rank;
  return planned;
}

}  // namespace

std::vector<PlanOnRanks> plans_by_ranks(const TrainSettings& settings, const PlanRequest& request,
                                        const std::vector<int>& ranks, const Note& note) {
  const Job job = job_to_measure(settings);
  const auto candidates = ranks.empty() ? candidate_ranks(settings, std::ssize(job.network.layers)) : ranks;
  return best_by_ranks(settings, candidates, note, [&](const TrainSettings& on, int count) {
    PlanRequest own = request;
    own.ranks = count;
    return plan_on(own, measured_costs(on, job, own, note));
  });
}

std::optional<PlanOnRanks> plan_on_one_rank(const TrainSettings& settings, const PlanRequest& request,
                                            const Note& note) {
  PlanRequest alone;
  alone.batch = request.batch;
  alone.memory = request.memory;
  alone.recomputation = request.recomputation;
  alone.schedules = {"1f1b"};
  alone.stages_per_rank = {1};
  // Small ones only cost time: there is nobody to wait for.
  for (const int count : {1, 2, 4})
    if (count <= request.batch) alone.microbatches.push_back(count);
  alone.most_plans = 1;
  const Job job = job_to_measure(settings);
  const TrainSettings on = settings_on(settings, 1);
  alone.ranks = 1;
  MeasuredCosts measured = measured_costs(on, job, alone, note);
  try {
    return plan_on(alone, std::move(measured));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::BadInput) throw;
    return std::nullopt;
  }
}

MeasuredCosts measured_costs(const TrainSettings& settings, const PlanRequest& request, const Note& note) {
  return measured_costs(settings, job_to_measure(settings), request, note);
}

MeasuredCosts measured_costs(const TrainSettings& settings, const Job& job, const PlanRequest& request,
                             const Note& note) {
  check_sizes(request, std::ssize(job.network.layers));
  const PipelineSettings pipeline = one_stage_settings(settings, job);
  const ProfileSettings profile = profile_settings(settings, request, pipeline, *job.train);
  const Description model = describe_model(settings, job);
  const Description machine = describe_machine(profile);
  MeasuredCosts measured;
  measured.threads_per_rank = settings.layout.devices.empty() ? profile.threads_per_rank : 0;
  measured.file = file_of_costs(settings, model, machine, profile.sizes);
  const bool named = !settings.planning.cost.empty();
  if (auto found = found_costs(measured.file, named, model, machine, profile.sizes, job.network)) {
    // What a user has named may come from elsewhere, and is theirs.
    const bool noisy = !named && found->measured && found->measured->spread > noisy_spread;
    if (!settings.planning.remeasure && !noisy) {
      measured.costs = std::move(*found);
      measured.reused = true;
      tell_reused(measured, note);
      return measured;
    }
    if (noisy)
      report(note, fmt::format("the layers were measured before, on a busy machine ({}): they are measured again",
                               how_measured(*found)));
  }
  report(note, fmt::format("measuring the layers on {}{}, in microbatches of {}", counted(profile.ranks, "rank"),
                           profile.ranks > 1 ? " at once" : "", fmt::join(profile.sizes, ", ")));
  const SteadyClock clock;
  const Milliseconds start = clock.now();
  measured.costs = profile_layers(job.network, profile);
  measured.costs.step_overhead = measured_step_overhead(profile.ranks, profile.threads_per_rank);
  measured.costs.model = model;
  measured.costs.machine = machine;
  std::error_code ignored;
  if (measured.file.has_parent_path()) fs::create_directories(measured.file.parent_path(), ignored);
  save_layer_costs(measured.costs, measured.file);
  const Measurement& how = measured.costs.measured.value();
  report(note, fmt::format("measured in {} ({}, median known to {:.1f} %): {}", to_string(clock.now() - start),
                           counted(how.rounds, "round"), how.spread * 100, measured.file.string()));
  if (how.spread > noisy_spread)
    report(note, "the machine is busy with something else: the plan may not hold; plan again when it is not");
  return measured;
}

MeasuredPlan try_plan(const TrainSettings& settings, const Plan& plan, int steps) {
  constexpr int warm_up = 2;
  TrainSettings own = settings;
  own.layout = with_plan(settings.layout, plan);
  own.training.batch = plan.batch;
  const Job job = job_to_measure(own);
  Pipeline pipeline(job.network, schedule_of(plan), make_pipeline_settings(own, job));
  const SteadyClock clock;
  std::vector<double> step_ms;
  std::vector<double> utilisations;
  for (int step = 0; step < warm_up + steps; ++step) {
    const Minibatch minibatch =
        job.train->minibatch(samples_of_step(job.train->size(), step, own.training.batch, own.training.seed));
    const Milliseconds start = clock.now();
    const StepResult result =
        pipeline.step(split_minibatch(minibatch, plan.microbatches), {step, own.training.learning_rate});
    if (step < warm_up) continue;
    step_ms.push_back((clock.now() - start).count);
    utilisations.push_back(utilisation(result.timeline));
  }
  return {{quantile(step_ms, 0.5)}, quantile(utilisations, 0.5), pipeline.peak_memory()};
}

TrainSettings choose_automatic(const TrainSettings& settings, const Note& note) {
  // What refuses the folder is known before the data is opened.
  static_cast<void>(RunFolder(settings.output.folder, settings.output.resume));
  return choose_automatic(settings, job_of(settings), note);
}

TrainSettings choose_automatic(const TrainSettings& settings, const Job& job, const Note& note) {
  // What refuses the folder is known before anything is measured.
  static_cast<void>(RunFolder(settings.output.folder, settings.output.resume));
  const auto planned_on = [&](const TrainSettings& on, int ranks) {
    PlanRequest request = request_of(on);
    request.ranks = ranks;
    check_sizes(request, std::ssize(job.network.layers));
    request.cut = cut_of(on, ranks, job);
    return plan_on(request, measured_costs(on, job, request, note));
  };
  const std::vector<PlanOnRanks> planned =
      settings.layout.ranks.is_automatic()
          ? best_by_ranks(settings, candidate_ranks(settings, std::ssize(job.network.layers)), note, planned_on)
          : std::vector{planned_on(settings, given_ranks(settings.layout))};
  const bool is_comparable = std::none_of(planned.begin(), planned.end(), is_too_noisy);
  for (std::size_t other = 1; is_comparable && other < planned.size(); ++other)
    report(note, fmt::format("on {} a step would take {}", counted(planned[other].plan.ranks, "rank"),
                             to_string(planned[other].plan.prediction.step)));
  const Plan& plan = planned.front().plan;
  std::error_code failure;
  fs::create_directories(settings.output.folder, failure);
  if (failure)
    throw bad_input(fmt::format("cannot make the folder {}: {}", settings.output.folder, failure.message()),
                    "a folder that can be made", "choose another `out`");
  const fs::path file = fs::path(settings.output.folder) / "plan.toml";
  save_plan(plan, file);
  TrainSettings chosen = settings;
  chosen.layout = with_plan(settings.layout, plan, schedule_file_beside(file));
  chosen.planning.plan = file.string();
  report(note, fmt::format("planned: {}, {}, {}, cut {}: {} a step predicted ({})", counted(plan.ranks, "rank"),
                           plan.schedule, counted(plan.microbatches, "microbatch"), to_text(choice_of(plan.cut)),
                           to_string(plan.prediction.step), file.string()));
  return chosen;
}

}  // namespace penstock
