#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/parse_bytes.h"
#include "penstock/plan/plan_file.h"
#include "penstock/report/grid.h"
#include "penstock/report/html.h"
#include "penstock/report/plan_report.h"

#include "mistakes.h"
#include "output_file.h"
#include "plan_export.h"
#include "schedule_commands.h"

namespace penstock::app {
namespace {

struct PlanOptions {
  std::string cost;
  int ranks = 0;
  std::int64_t batch = 0;
  std::string memory;
  std::string model;
  std::string machine;
  std::vector<std::string> schedules;
  std::vector<int> microbatches;
  std::vector<int> stages_per_rank;
  std::vector<std::string> replicas{"1"};
  std::string recompute = "auto";
  std::string cut = "auto";
  std::size_t top = 5;
  std::size_t tries = 0;
  double effort = 50;
  std::string sweep;
  std::string draw;
  std::string output;
  std::string export_folder;
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
      throw bad_input(fmt::format("--replicas {}", shortened(word)), "auto, or numbers of at least 1",
                      "correct --replicas");
    replicas.push_back(count);
  }
  return replicas;
}

/// A list of the first layers of the later stages; it decides the number of stages.
std::optional<Cut> parse_cut_option(const std::string& text, std::int64_t layers) {
  if (text == "auto") return std::nullopt;
  const auto stages = static_cast<int>(std::count(text.begin(), text.end(), ',')) + 2;
  return parse_cut(text, layers, stages);
}

Recomputation parse_recomputation(const std::string& word) {
  if (word == "none") return Recomputation::None;
  return word == "full" ? Recomputation::Full : Recomputation::WhereNeeded;
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
  request.ranks = options.ranks;
  request.batch = options.batch;
  if (!options.memory.empty()) request.memory = parse_bytes("--memory", options.memory);
  request.schedules = options.schedules;
  request.microbatches = options.microbatches;
  request.stages_per_rank = options.stages_per_rank;
  request.replicas = parse_replicas(options.replicas);
  request.recomputation = parse_recomputation(options.recompute);
  if (!options.export_folder.empty()) restrict_to_pytorch(request);
  request.most_plans = std::max(options.top, options.tries);
  request.most_simulated_passes = std::llround(options.effort * passes_a_unit);
  return request;
}

std::vector<std::optional<Bytes>> caps_of(const LayerCosts& costs, const PlanRequest& request) {
  std::vector<std::optional<Bytes>> caps(static_cast<std::size_t>(request.ranks), request.memory);
  for (std::size_t rank = 0; rank < costs.ranks.size() && rank < caps.size(); ++rank) {
    const auto& cap = costs.ranks[rank].memory_cap;
    if (cap && (!caps[rank] || *cap < *caps[rank])) caps[rank] = cap;
  }
  return caps;
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
  if (!options.export_folder.empty() && std::filesystem::exists(options.export_folder) &&
      !std::filesystem::is_directory(options.export_folder))
    throw bad_input(fmt::format("--export-pytorch {} is no folder", shortened(options.export_folder)),
                    "a folder, which need not exist", "name another");
}

using Costs = PlanMeasurements::Costs;

Costs costs_of(const PlanOptions& options, const PlanRequest& request, const PlanMeasurements& measurements) {
  const bool measures = measurements.asked_for && measurements.asked_for();
  if (measures) {
    Costs measured = measurements.costs(options.model, request, options.cost);
    require_description(measured.costs.machine, parse_description(options.machine, "--machine"), "machine",
                        measured.file);
    return measured;
  }
  if (options.cost.empty())
    throw bad_input("no --cost", "a file with the costs of every layer",
                    measurements.costs ? "name one, or name --data, and --model and its sizes, to measure them"
                                       : "name one with --cost");
  if (options.tries > 0)
    throw bad_input(fmt::format("--try {} without --data", options.tries), "a network to run",
                    "name --data, and --model and its sizes");
  if (request.ranks == automatic_ranks)
    throw bad_input("--ranks auto without --data", "a network, to measure on each number of ranks",
                    "name --data, and --model and its sizes, or give a number of ranks");
  Costs costs{load_layer_costs(options.cost), options.cost, request.ranks};
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
  if (!options.export_folder.empty()) export_for_pytorch(best, costs.costs, options.export_folder);
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
  constexpr double noisy = 0.2;
  constexpr double noisy_median = 0.05;
  const double spread = spread_of(costs.costs);
  const auto& measured = costs.costs.measured;
  if (measured && measured->spread > noisy_median)
    answer.notes.push_back(fmt::format(
        "{} was measured on a busy machine: the median is known to {:.1f} %; measure again on a machine that "
        "does nothing else, or the plan may not hold",
        costs.file, measured->spread * 100));
  if (!measured && spread > noisy)
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
  request.cut = parse_cut_option(options.cut, std::ssize(costs.costs.layers));
  PlanReport report;
  report.answer = make_plans(costs.costs, request);
  for (Plan& plan : report.answer.plans) plan.threads_per_rank = costs.threads_per_rank;
  note_noise(costs, report.answer);
  try_plans(options, measurements, report);
  report.neighbours = neighbours(costs.costs, request, report.answer);
  report.other_circumstances = other_circumstances(costs.costs, request, report.answer);
  if (costs.costs.measured) report.spread = costs.costs.measured->spread;
  report.memory_caps = caps_of(costs.costs, request);
  report.on_other_ranks = std::move(costs.on_other_ranks);
  const bool measures = measurements.asked_for && measurements.asked_for();
  if (measures && options.ranks > 1)
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
                  "Copies of the whole pipeline, which divide the ranks: numbers, or auto (penstock train runs 1)")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--recompute", options.recompute, "auto: stages that do not fit otherwise; none or full")
      ->check(one_of({"auto", "none", "full"}), "")
      ->capture_default_str();
  command.add_option("--cut", options.cut, "auto, or the first layers of the later stages: 3,6,9")
      ->capture_default_str();
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
  command
      ->add_option("--ranks", options->ranks,
                   measures ? "Devices; auto, with --data: the number that is fastest, where threads divide the cores"
                            : "Devices")
      ->check(whole_number<int>, "")
      ->transform([](const std::string& text) { return text == "auto" ? std::to_string(automatic_ranks) : text; }, "",
                  "auto")
      ->required();
  command->add_option("--batch", options->batch, "Samples of an update")
      ->check(whole_number<std::int64_t>, "")
      ->required();
  command->add_option("--memory", options->memory, "Memory of each rank, such as 12GiB");
  command->add_option("--model", options->model,
                      measures ? "With --data the network to measure: gpt, mlp or convnet; without, refuse costs of "
                                 "another: NAME, or KEY=VALUE with commas between"
                               : "Refuse costs of another: NAME, or KEY=VALUE with commas between");
  command->add_option("--machine", options->machine,
                      "Refuse costs of another machine: NAME, or KEY=VALUE with commas between");
  add_restrictions(*command, *options);
  command->add_option("--top", options->top, "How many plans to list")->capture_default_str();
  if (measures)
    command
        ->add_option("--try", options->tries, "How many of the best to run for a few steps; what was measured decides")
        ->check(whole_number<std::size_t>, "");
  command->add_option("--effort", options->effort, "Millions of passes that may be simulated, about 10 a second")
      ->capture_default_str();
  command->add_option("--sweep", options->sweep, "SVG file: predicted step time over microbatches, a line a schedule");
  command->add_option("--draw", options->draw, "SVG or HTML file: the first plan's step");
  command->add_option("-o,--output", options->output, "TOML file to write the first plan to");
  command->add_option("--export-pytorch", options->export_folder,
                      "Folder to write the first plan to for torch.distributed.pipelining");
  command->add_flag("--json", options->json, "Answer as JSON");
  if (measurements.add_options) measurements.add_options(*command);
  return [options, measurements] { return run(*options, measurements); };
}

}  // namespace penstock::app
