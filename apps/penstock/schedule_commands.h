// The commands on schedules, plans, tokens and the folders of runs. They need no libtorch, neither to build nor to run.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "penstock/cost/cost.h"
#include "penstock/plan/plan.h"
#include "penstock/report/report.h"
#include "penstock/settings/settings.h"

#include "commands.h"

namespace penstock::app {

// penstock simulate FILE|NAME …
Command add_simulate_command(CLI::App& app);
// penstock schedule list|show|verify|compare|synth …
Command add_schedule_command(CLI::App& app);
// penstock schedule synth …
Command add_synth(CLI::App& schedule);

// penstock help [COMMAND…|TOPIC]: of all commands that `app` has when it runs.
Command add_help_command(CLI::App& app);

// penstock report RUN… -o report.html
Command add_report_command(CLI::App& app);

// penstock tokenize --tokenizer … --data … -o …
Command add_tokenize_command(CLI::App& app);

// What `penstock plan` can do where there is a network to measure and to try; all of it needs libtorch.
struct PlanMeasurements {
  // Options of the network and its data; `--model` is the command's own.
  std::function<void(CLI::App&)> add_options;
  // Whether the command line names data, and so a network that is to be measured.
  std::function<bool(const std::string& model)> asked_for;
  struct Costs {
    LayerCosts costs;
    std::string file;
    int ranks = 0;             // for which they were measured
    int threads_per_rank = 0;  // 0: nobody said
    std::vector<PlanElsewhere> on_other_ranks = {};
  };
  // On these ranks, or where they are automatic on the first number of `plans_by_ranks`; then also the best plans on
  // the others.
  // \param request without ranks. \param cost_file where they are kept, or are; may be empty.
  std::function<Costs(const std::string& model, PlanRequest request, const Ranks&, const std::string& cost_file)> costs;
  // The best plan on one rank; nothing where it does not fit.
  std::function<std::optional<PlanElsewhere>(const std::string& model, const PlanRequest&,
                                             const std::string& cost_file)>
      one_rank;
  std::function<MeasuredPlan(const std::string& model, const Plan&)> try_plan;
};

// penstock plan --cost FILE …, and with measurements penstock plan --model gpt --data …
Command add_plan_command(CLI::App& app, const PlanMeasurements& measurements = {});

}  // namespace penstock::app
