#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/plan/plan.h"
#include "penstock/plan/plan_layout.h"
#include "penstock/report/report.h"

#include "mistakes.h"
#include "output_file.h"
#include "plan_export.h"
#include "schedule_commands.h"
#include "setting_options.h"

namespace penstock::app {
namespace {

struct PlanOptions {
  std::string cost;
  Ranks ranks;
  std::int64_t batch = 0;
  std::optional<Bytes> memory;
  std::string model;
  std::string machine;
  std::vector<std::string> schedules;
  std::vector<int> microbatches;
  std::vector<int> stages_per_rank;
  std::vector<std::string> replicas{"1"};
  Recompute recompute = automatic;
  CutChoice cut = automatic;
  std::size_t top = 5;
  std::size_t tries = 0;
  double effort = 50;
  std::string sweep;
  std::string draw;
  std::string output;
  PlanExports exports;
  bool steps_overlap = false;
  int gradient_tree = 0;
  bool json = false;
};

/// "gpt" stands for name=gpt; "name=gpt,width=128" for itself.
Description parse_description(const std::string& text, const char* option) {
  Description description;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const std::size_t equals = part.find('=');
    if (part.empty() || equals == 0)
      throw bad_input(fmt::format("{} is \"{}\"", option, shortened(text)), "a name, or NAME=VALUE with commas between",
                      fmt::format("correct {}", option));
    if (equals == std::string::npos)
      description["name"] = part;
    else
      description[part.substr(0, equals)] = part.substr(equals + 1);
    begin = end + 1;
  }
  return description;
}

std::vector<int> parse_replicas(const std::vector<std::string>& words) {
  std::vector<int> replicas;
  for (const std::string& word : words) {
    if (word == "auto") return {};
    int count = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), count);
    if (error != std::errc() || end != word.data() + word.size() || count < 1)
      throw bad_input(fmt::format("--replicas is {}", shortened(word)), "auto, or numbers of at least 1",
                      "correct --replicas");
    replicas.push_back(count);
  }
  return replicas;
}

/// An explicit cut decides the number of stages.
std::optional<Cut> asked_cut(const CutChoice& choice, std::int64_t layers) {
  if (choice.is_automatic()) return std::nullopt;
  if (choice.kind() != CutChoice::Explicit)
    throw bad_input(fmt::format("--cut {}", to_text(choice)), "auto, or the first layers of the later stages: 3,6,9",
                    "change --cut");
  return cut_of(choice, layers, static_cast<int>(choice.first_layers().size()) + 1);
}

PlanRequest request_of(const PlanOptions& options) {
  constexpr double passes_a_unit = 1e6;
  if (!(options.effort > 0 && options.effort <= 1e6))
    throw bad_input(fmt::format("--effort {}", options.effort), "millions of passes, above 0 and up to 1000000",
                    "correct the number");
  if (options.top < 1 || options.top > 1000)
    throw bad_input(fmt::format("--top {}", options.top), "1 to 1000", "correct the number");
  if (options.tries > 1000) throw bad_input(fmt::format("--try {}", options.tries), "0 to 1000", "correct the number");
  PlanRequest request;
  request.batch = options.batch;
  request.memory = options.memory;
  request.schedules = options.schedules;
  request.microbatches = options.microbatches;
  request.stages_per_rank = options.stages_per_rank;
  request.replicas = parse_replicas(options.replicas);
  request.gradient_tree = options.gradient_tree;
  request.recomputation = recomputation_of(options.recompute);
  restrict_to_exports(request, options.exports);
  request.steps_overlap = options.steps_overlap;
  request.most_plans = std::max(options.top, options.tries);
  request.most_simulated_passes = std::llround(options.effort * passes_a_unit);
  return request;
}

void draw(const PlanOptions& options, const Plan& plan, const LayerCosts& costs) {
  const Timeline timeline = timeline_of(plan, costs);
  std::string title = fmt::format("{} on {}, {}: {}", plan.schedule, counted(plan.ranks, "rank"),
                                  counted(plan.microbatches, "microbatch"), to_string(makespan(timeline)));
  if (plan.prediction.step > plan.prediction.pipeline)
    title += fmt::format(" of a step of {}; exchange and update follow", to_string(plan.prediction.step));
  if (std::filesystem::path(options.draw).extension() == ".html")
    write_file_atomically(options.draw, to_html({{plan.schedule, timeline}}, {title, "ms"}));
  else
    write_file_atomically(options.draw, to_svg(timeline, {title, "ms"}));
}

void check_outputs(const PlanOptions& options) {
  check_output_is({"a plan as TOML", ".toml"}, options.output);
  check_output_is({"a picture as SVG", ".svg"}, options.sweep, "--sweep");
  check_output(options.draw, "--draw");
  const auto extension = std::filesystem::path(options.draw).extension();
  if (!options.draw.empty() && extension != ".svg" && extension != ".html")
    throw bad_input(fmt::format("--draw {}", shortened(options.draw)), "a file that ends in .svg or .html",
                    "change the name");
  check_exports(options.exports);
}

using Costs = PlanMeasurements::Costs;

Costs costs_of(const PlanOptions& options, const PlanRequest& request, const PlanMeasurements& measurements) {
  const bool measures = measurements.asked_for && measurements.asked_for(options.model);
  if (measures) {
    Costs measured = measurements.costs(options.model, request, options.ranks, options.cost);
    require_description(measured.costs.machine, parse_description(options.machine, "--machine"), "machine",
                        measured.file);
    return measured;
  }
  if (options.cost.empty())
    throw bad_input("no --cost", "a file with the costs of every layer",
                    measurements.costs
                        ? "name one, or, to measure them, --data with --model and its sizes, or --model with a "
                          "published model's folder"
                        : "name one with --cost");
  if (options.tries > 0)
    throw bad_input(fmt::format("--try {} without --data", options.tries), "a network to run",
                    "name --data, and --model and its sizes");
  if (options.ranks.is_automatic())
    throw bad_input("--ranks auto without --data", "a network, to measure on each number of ranks",
                    "name --data, and --model and its sizes, or give a number of ranks");
  Costs costs{load_layer_costs(options.cost), options.cost, options.ranks.count()};
  require_description(costs.costs.model, parse_description(options.model, "--model"), "model", options.cost);
  require_description(costs.costs.machine, parse_description(options.machine, "--machine"), "machine", options.cost);
  return costs;
}

// Runs the best plans, of one replica each, and orders them by what was measured; those that were not tried follow.
void try_plans(const PlanOptions& options, const PlanMeasurements& measurements, PlanReport& report) {
  std::vector<Plan>& plans = report.answer.plans;
  const std::size_t count = std::min(options.tries, plans.size());
  std::vector<std::pair<MeasuredPlan, Plan>> tried;
  for (std::size_t index = 0; index < count; ++index) {
    if (plans[index].replicas > 1)
      throw bad_input("--try of a plan with replicas", "plans of one replica", "leave --replicas out");
    tried.emplace_back(measurements.try_plan(options.model, plans[index]), plans[index]);
  }
  std::stable_sort(tried.begin(), tried.end(),
                   [](const auto& a, const auto& b) { return a.first.step < b.first.step; });
  for (std::size_t index = 0; index < count; ++index) {
    report.measured.push_back(tried[index].first);
    plans[index] = tried[index].second;
  }
}

std::vector<MeasuredPoint> measured_points(const PlanReport& report) {
  std::vector<MeasuredPoint> points;
  for (std::size_t index = 0; index < report.measured.size(); ++index) {
    const Plan& plan = report.answer.plans[index];
    points.push_back({plan.schedule, plan.stages_per_rank, plan.microbatches, report.measured[index].step});
  }
  return points;
}

// Of equal microbatches, where the numbers are free: between them lie the steps of sizes that differ by one sample.
std::vector<SweepPoint> sweep_of(const LayerCosts& costs, PlanRequest request, const PlanAnswer& answer) {
  request.equal_microbatches = request.microbatches.empty();
  std::vector<SweepPoint> points = sweep_plans(costs, request);
  include_plans(points, answer.plans);
  return points;
}

void write_outputs(const PlanOptions& options, const PlanReport& report, const Costs& costs,
                   const PlanRequest& request) {
  Plan best = report.answer.plans.front();
  std::error_code ignored;
  best.costs_file = std::filesystem::absolute(costs.file, ignored).string();
  if (!options.output.empty()) save_plan(best, options.output);
  if (!options.draw.empty()) draw(options, best, costs.costs);
  if (!options.sweep.empty())
    write_file_atomically(options.sweep, sweep_svg(report.sweep, measured_points(report),
                                                   fmt::format("Predicted step on {}, batch of {}",
                                                               counted(request.ranks, "rank"), request.batch),
                                                   report.spread));
  write_exports(best, costs.costs, options.exports);
}

/// The spread of the layers' forwards and backwards as a share of their time, all together.
double spread_of(const LayerCosts& costs) {
  double time = 0;
  double spread = 0;
  for (const LayerCost& layer : costs.layers)
    for (const LayerAtSize& at : layer.sizes)
      for (const MeasuredTime* measured : {&at.forward, &at.input_backward, &at.weight_backward}) {
        time += measured->median.count;
        spread += measured->spread.count;
      }
  return time > 0 ? spread / time : 0;
}

/// Of costs from a busy machine: a plan made from them may not hold.
void note_noise(const Costs& costs, PlanAnswer& answer) {
  // Of old files, which do not say how well the medians are known.
  constexpr double noisy_times = 0.2;
  const double spread = spread_of(costs.costs);
  const auto& measured = costs.costs.measured;
  if (measured && measured->spread > noisy_spread)
    answer.notes.push_back(fmt::format(
        "{} was measured on a busy machine: the median is known to {:.1f} %; measure again on a machine that "
        "does nothing else, or the plan may not hold",
        costs.file, measured->spread * 100));
  if (!measured && spread > noisy_times)
    answer.notes.push_back(
        fmt::format("{} is noisy: half of the measurements lie within {:.0f} % of their median; measure again on a "
                    "machine that does "
                    "nothing else, or the plan may not hold",
                    costs.file, spread * 100));
}

int run(const PlanOptions& options, const PlanMeasurements& measurements) {
  check_outputs(options);
  PlanRequest request = request_of(options);
  Costs costs = costs_of(options, request, measurements);
  request.ranks = costs.ranks;
  request.cut = asked_cut(options.cut, std::ssize(costs.costs.layers));
  PlanReport report;
  report.answer = make_plans(costs.costs, request);
  for (Plan& plan : report.answer.plans) plan.threads_per_rank = costs.threads_per_rank;
  note_noise(costs, report.answer);
  try_plans(options, measurements, report);
  report.neighbours = neighbours(costs.costs, request, report.answer);
  report.other_circumstances = other_circumstances(costs.costs, request, report.answer);
  if (costs.costs.measured) report.spread = costs.costs.measured->spread;
  report.memory_caps = memory_caps_of(costs.costs, request);
  report.on_other_ranks = std::move(costs.on_other_ranks);
  const bool measures = measurements.asked_for && measurements.asked_for(options.model);
  if (measures && !options.ranks.is_automatic() && options.ranks.count() > 1)
    if (auto alone = measurements.one_rank(options.model, request, options.cost))
      report.on_other_ranks.push_back(std::move(*alone));
  if (!options.sweep.empty()) report.sweep = sweep_of(costs.costs, request, report.answer);
  write_outputs(options, report, costs, request);
  fmt::print("{}", options.json ? to_json(report) : to_text(report));
  return 0;
}

void add_restrictions(CLI::App& command, PlanOptions& options) {
  command.add_option("--schedule", options.schedules, "Only these, with commas between; synthesised is one of them")
      ->delimiter(',');
  command.add_option("--microbatches", options.microbatches, "Only these numbers, with commas between")
      ->delimiter(',')
      ->check(whole_number<int>, "");
  command.add_option("--stages-per-rank", options.stages_per_rank, "Only these numbers, with commas between")
      ->delimiter(',')
      ->check(whole_number<int>, "");
  command
      .add_option("--replicas", options.replicas,
                  "Copies of the whole pipeline, which divide the ranks: numbers, or auto")
      ->delimiter(',')
      ->capture_default_str();
  command
      .add_option("--gradient-tree", options.gradient_tree,
                  "Plan for runs with this gradient tree, whose bits do not depend on the replicas; 0: none")
      ->check(whole_number<int>, "");
  add_text_option(command, "recompute", options.recompute, "auto: stages that do not fit otherwise; none or full")
      ->check(one_of({"auto", "none", "full"}), "");
  add_text_option(command, "cut", options.cut, "auto, or the first layers of the later stages: 3,6,9");
}

}  // namespace

Command add_plan_command(CLI::App& app, const PlanMeasurements& measurements) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand(
      "plan", "Chooses cut, schedule, microbatches and recomputation for measured layers, and says why");
  const bool measures = static_cast<bool>(measurements.costs);
  command->add_option("--cost", options->cost,
                      measures ? "JSON file with the costs of every layer; with --data, where they are kept"
                               : "JSON file with the costs of every layer");
  add_count_option(
      *command, "ranks", options->ranks,
      measures ? "Devices; auto, with --data: the number that is fastest, where threads divide the cores" : "Devices")
      ->default_str("")
      ->required();
  command->add_option("--batch", options->batch, "Samples of an update")
      ->check(whole_number<std::int64_t>, "")
      ->required();
  add_text_option(*command, "memory", options->memory, "Memory of each rank, such as 12GiB");
  command->add_option("--model", options->model,
                      measures ? "The network to measure: the folder of a published model, or with --data gpt, mlp or "
                                 "convnet; otherwise refuse costs of another: NAME, or KEY=VALUE with commas between"
                               : "Refuse costs of another: NAME, or KEY=VALUE with commas between");
  command->add_option("--machine", options->machine,
                      "Refuse costs of another machine: NAME, or KEY=VALUE with commas between");
  add_restrictions(*command, *options);
  command->add_option("--top", options->top, "How many plans to list")->capture_default_str();
  if (measures)
    command
        ->add_option("--try", options->tries, "How many of the best to run for a few steps; what was measured decides")
        ->check(whole_number<std::size_t>, "");
  command
      ->add_option("--effort", options->effort, "Millions of passes that may be simulated, about 10 million a second")
      ->capture_default_str();
  command->add_option("--sweep", options->sweep, "SVG file: predicted step time over microbatches, a line a schedule");
  command->add_option("--draw", options->draw, "SVG or HTML file: the first plan's step");
  command->add_option("-o,--output", options->output, "TOML file to write the first plan to");
  command->add_option("--export-pytorch", options->exports.pytorch,
                      "Folder to write the first plan to for torch.distributed.pipelining");
  command->add_option("--export-torchtitan", options->exports.torchtitan,
                      "Folder to write the first plan to for torchtitan: tables of a configuration, and the schedule");
  command->add_option("--export-megatron", options->exports.megatron,
                      "File to write the first plan to as arguments of Megatron-LM");
  command->add_flag("--steps-overlap", options->steps_overlap,
                    "Plan for runs whose ranks need not wait for each other between steps: without clipping, or with "
                    "post-validation");
  command->add_flag("--json", options->json, "Answer as JSON");
  if (measurements.add_options) measurements.add_options(*command);
  return [options, measurements] { return run(*options, measurements); };
}

}  // namespace penstock::app
