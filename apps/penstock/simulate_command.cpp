#include <fmt/format.h>
#include <memory>

#include "penstock/report/answers.h"
#include "penstock/sim/simulate.h"
#include "penstock/sim/steps.h"

#include "schedule_commands.h"
#include "schedule_input.h"

namespace penstock::app {
namespace {

struct SimulateOptions {
  ScheduleInput schedule;
  CostInput cost;
  int steps = 1;
  bool json = false;
};

int run(const SimulateOptions& options) {
  const VerifiedSchedule schedule = verify(read_schedule(options.schedule), to_look_at);
  const Cost cost = read_cost(options.cost, schedule->stages);
  SimulationAnswer answer{options.schedule.source, schedule->stages,
                          schedule->microbatches,  summarise(simulate(schedule, cost)),
                          cost.memory_caps,        {}};
  if (options.steps != 1) answer.row = simulate_in_a_row(schedule, cost, options.steps);
  fmt::print("{}", options.json ? to_json(answer) : to_text(answer));
  if (!options.json && is_unit_cost(options.cost)) fmt::print("\n{}\n", unit_cost_text);
  return 0;
}

}  // namespace

Command add_simulate_command(CLI::App& app) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App* command = app.add_subcommand("simulate", "Plays a schedule on a virtual clock: step time, bubble, memory");
  add_schedule_options(*command, options->schedule);
  add_cost_options(*command, options->cost);
  command->add_option("--steps", options->steps, "Also so many steps in a row, in which no rank waits between them")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
