#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/diagnosis/bubbles.h"

#include "commands.h"

namespace penstock::app {
namespace {

std::string bar(double share) {
  constexpr int cells = 30;
  std::string drawn;
  for (int cell = 0; cell < cells; ++cell) drawn += cell < std::lround(share * cells) ? "█" : "░";
  return drawn;
}

std::string to_json(const BubbleSettings& settings, const std::vector<BubbleRow>& rows) {
  using Json = nlohmann::ordered_json;
  Json object = {{"stages", settings.stages},
                 {"forward_ms", settings.forward_ms},
                 {"backward_ms", settings.backward_ms},
                 {"steps", settings.steps},
                 {"rows", Json::array()}};
  for (const BubbleRow& row : rows)
    object["rows"].push_back({{"schedule", row.schedule},
                              {"microbatches", row.microbatches},
                              {"theory", row.theory},
                              {"measured", row.measured},
                              {"ms_per_step", row.step_ms},
                              {"theory_ms_per_step", row.theory_ms}});
  return object.dump(2) + "\n";
}

int run(const BubbleSettings& settings, bool json) {
  // Before anything is printed: it may be refused.
  const std::vector<BubbleRow> rows = measure_bubbles(settings);
  if (json) {
    fmt::print("{}", to_json(settings, rows));
    return 0;
  }
  fmt::print("{}, {} ms forward and {} ms backward a microbatch. How much of the time does a device work?\n",
             counted(settings.stages, "device"), settings.forward_ms, settings.backward_ms);
  std::string last;
  for (const BubbleRow& row : rows) {
    if (row.schedule != last)
      fmt::print("\n{:<16}  {:>12}  {:>8}  {:>8}  {:>9}\n", row.schedule, "microbatches", "theory", "measured", "step");
    last = row.schedule;
    fmt::print("{:<16}  {:>12}  {:>7.1f}%  {:>7.1f}%  {:>6.0f} ms  {}\n", "", row.microbatches, row.theory * 100,
               row.measured * 100, row.step_ms, bar(row.measured));
  }
  if (settings.relative_times.size() > 1) return 0;
  fmt::print("\nnaive: 1/P of the time, however many microbatches. GPipe and 1F1B: M/(M + P - 1) of it.\n");
  return 0;
}

}  // namespace

Command add_bubbles_command(CLI::App& app) {
  auto settings = std::make_shared<BubbleSettings>();
  CLI::App* command =
      app.add_subcommand("bubbles", "The lesson of pipelining: idle devices, measured beside the theory");
  command->add_option("--stages", settings->stages, "Devices")->capture_default_str();
  command->add_option("--microbatches", settings->microbatches, "Numbers to try")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--schedules", settings->schedules, "Schedules to try: any name of penstock schedule list")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--forward-ms", settings->forward_ms, "Simulated forward time of a microbatch on a stage, ms")
      ->capture_default_str();
  command->add_option("--backward-ms", settings->backward_ms, "Simulated backward time, ms; half of it for the weights")
      ->capture_default_str();
  command
      ->add_option("--relative-times", settings->relative_times,
                   "How long the stages take beside each other; repeated where there are more stages")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--steps", settings->steps, "Steps in a row; 1: each by itself")->capture_default_str();
  command->add_option("--clip", settings->clip_norm, "Largest norm of the gradient, checked after the update; 0: none")
      ->capture_default_str();
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Answer as JSON");
  return [settings, json] { return run(*settings, *json); };
}

}  // namespace penstock::app
