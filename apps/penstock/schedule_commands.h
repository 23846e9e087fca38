// The commands on schedules, plans and tokens. They need no libtorch, neither to build nor to run.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "penstock/cost/layer_cost.h"
#include "penstock/plan/plan.h"
#include "penstock/report/plan_report.h"

#include "commands.h"

namespace penstock::app {

// penstock simulate FILE|NAME …
Command add_simulate_command(CLI::App& app);
// penstock schedule list|show|verify|compare|synth …
Command add_schedule_command(CLI::App& app);
// penstock schedule synth …
Command add_synth(CLI::App& schedule);

// penstock tokenize --tokenizer … --data … -o …
Command add_tokenize_command(CLI::App& app);

// The number of ranks that stands for "auto".
inline constexpr int automatic_ranks = -1;

// What `penstock plan` can do where there is a network to measure and to try; all of it needs libtorch.
struct PlanMeasurements {
  // Options of the network and its data; `--model` is the command's own.
  std::function<void(CLI::App&)> add_options;
  // Whether the command line names data, and so a network that is to be measured.
  std::function<bool()> asked_for;
  struct Costs {
    LayerCosts costs;
    std::string file;
    int ranks = 0;             // for which they were measured
    int threads_per_rank = 0;  // 0: nobody said
    std::vector<Plan> on_other_ranks = {};
  };
  // Of the request's ranks, or where those are `automatic_ranks` of the number that is fastest; then also the best
  // plans on the others. \param cost_file where they are kept, or are; may be empty.
  std::function<Costs(const std::string& model, const PlanRequest&, const std::string& cost_file)> costs;
  // The best plan on one rank; nothing where it does not fit.
  std::function<std::optional<Plan>(const std::string& model, const PlanRequest&, const std::string& cost_file)>
      one_rank;
  std::function<MeasuredPlan(const std::string& model, const Plan&)> try_plan;
};

// penstock plan --cost FILE …, and with measurements penstock plan --model gpt --data …
Command add_plan_command(CLI::App& app, const PlanMeasurements& measurements = {});

}  // namespace penstock::app
