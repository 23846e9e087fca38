#include <fmt/format.h>
#include <memory>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/report/answers.h"
#include "penstock/report/report.h"
#include "penstock/synthesis/synthesise.h"

#include "mistakes.h"
#include "output_file.h"
#include "schedule_commands.h"
#include "schedule_input.h"

namespace penstock::app {
namespace {

struct SynthOptions {
  int ranks = 0;
  int microbatches = 0;
  std::optional<int> stages_per_rank;
  std::string placement = "loop";
  std::optional<int> memory_cap;
  double budget_s = 1.5;
  std::uint64_t seed = 1;
  CostInput cost;
  std::string output;
  bool json = false;
};

Placement placement_of(const SynthOptions& options, int stages_per_rank) {
  return options.placement == "v" ? wave_placement(options.ranks, stages_per_rank)
                                  : loop_placement(options.ranks, options.ranks * stages_per_rank);
}

int run(const SynthOptions& options) {
  if (!(options.budget_s > 0 && options.budget_s <= 3600))
    throw bad_input(fmt::format("--budget {}", options.budget_s), "seconds, above 0 and up to an hour",
                    "correct the number");
  check_output_is({"a schedule as CSV", ".csv"}, options.output);
  const int stages_per_rank = options.stages_per_rank.value_or(options.placement == "v" ? 2 : 1);
  check_synthesis_sizes(options.ranks, stages_per_rank, options.microbatches);
  SynthesisSettings settings;
  settings.ranks = options.ranks;
  settings.microbatches = options.microbatches;
  settings.placement = placement_of(options, stages_per_rank);
  if (options.memory_cap) settings.memory_caps = {*options.memory_cap};
  settings.budget = {options.budget_s * 1000};
  settings.seed = options.seed;
  const Cost cost = read_cost(options.cost, options.ranks * stages_per_rank);
  const Synthesis synthesis = synthesise(settings, cost, SteadyClock());
  if (!options.output.empty()) write_file_atomically(options.output, to_csv(synthesis.schedule.get()));
  SynthesisAnswer answer;
  answer.simulation = {options.output.empty() ? "synthesised" : options.output, synthesis.schedule->stages,
                       options.microbatches, summarise(synthesis.timeline), cost.memory_caps};
  answer.longest_span = synthesis.longest_span;
  answer.lower_bound = synthesis.lower_bound;
  answer.proved_optimal = synthesis.proved_optimal;
  answer.best_generator = synthesis.best_generator;
  answer.generator_span = synthesis.generator_span;
  fmt::print("{}", options.json ? to_json(answer) : to_text(answer));
  return 0;
}

}  // namespace

Command add_synth(CLI::App& parent) {
  auto options = std::make_shared<SynthOptions>();
  CLI::App* command =
      parent.add_subcommand("synth", "Finds a schedule for these costs and caps that beats the published ones");
  command->add_option("--ranks", options->ranks, "Devices")->required();
  command
      ->add_option("--microbatches", options->microbatches,
                   fmt::format("Microbatches of a step; times the stages at most {}", most_synthesised_passes))
      ->required();
  command->add_option("--placement", options->placement, "loop: stage s on rank s mod P; v: to and fro over the ranks")
      ->check(one_of({"loop", "v"}), "")
      ->capture_default_str();
  command->add_option(
      "--stages-per-rank", options->stages_per_rank,
      fmt::format("Stages of each device (loop: 1, v: 2), at most {}", most_synthesised_stages_per_rank));
  command->add_option("--memory-cap", options->memory_cap,
                      "Most activations that a rank may hold, each of one microbatch on one stage");
  add_cost_options(*command, options->cost);
  command->add_option("--budget", options->budget_s, "Seconds to search; then the best so far is taken")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the search")
      ->check(whole_number<std::uint64_t>, "")
      ->capture_default_str();
  command->add_option("-o,--output", options->output, "CSV file to write the schedule to");
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
