#include "schedule_input.h"

#include <filesystem>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/schedule/generators.h"

namespace penstock::app {
namespace {

void require_size(const char* what, std::optional<int> asked, int found, const std::string& file) {
  if (asked && *asked != found)
    throw bad_input(fmt::format("--{} is {}", what, *asked), fmt::format("{}, as in {}", found, file),
                    "leave the option out for a file");
}

bool given_by_options(const CostInput& input) {
  return input.forward_ms || input.input_backward_ms || input.weight_backward_ms || input.link_ms ||
         input.weight_activation_share;
}

}  // namespace

void add_schedule_options(CLI::App& command, ScheduleInput& input) {
  command.add_option("schedule", input.source, "A schedule's name, or a CSV file of one")->required();
  command.add_option("--ranks", input.ranks, "Devices (needed with a name)");
  command.add_option("--microbatches", input.microbatches, "Microbatches of a step (needed with a name)");
  command.add_option("--stages-per-rank", input.stages_per_rank,
                     "Stages of each device, where the schedule leaves it open");
}

void add_cost_options(CLI::App& command, CostInput& input) {
  command.add_option("--cost", input.file, "JSON file with the cost of every stage and link");
  command.add_option("--forward", input.forward_ms, "Forward of one stage, ms, all stages alike (1)");
  command.add_option("--input-backward", input.input_backward_ms, "Its backward to the input, ms (1)");
  command.add_option("--weight-backward", input.weight_backward_ms, "Its backward to the weights, ms (1)");
  command.add_option("--link", input.link_ms, "Latency of every link, ms (0)");
  command.add_option("--weight-activation-share", input.weight_activation_share,
                     "Share of an activation still held between I and W (1)");
}

Schedule read_schedule(const ScheduleInput& input) {
  std::error_code ignored;  // of a name that is too long, too: there is no such file
  if (std::filesystem::is_regular_file(input.source, ignored)) {
    Schedule schedule = parse_schedule(read_file(input.source));
    require_size("ranks", input.ranks, schedule.ranks(), input.source);
    require_size("microbatches", input.microbatches, schedule.microbatches, input.source);
    return schedule;
  }
  if (input.source.find_first_of("/.") != std::string::npos)
    throw bad_input(shortened(input.source) + " is no file", "a CSV file of a schedule, or a schedule's name",
                    "correct the path");
  if (!input.ranks || !input.microbatches)
    throw bad_input(shortened(input.source) + " without --ranks and --microbatches",
                    "both sizes with a schedule's name", "add the options");
  return make_schedule(input.source, *input.ranks, *input.microbatches, input.stages_per_rank);
}

bool is_unit_cost(const CostInput& input) { return input.file.empty() && !given_by_options(input); }

Cost read_cost(const CostInput& input, int stages) {
  if (!input.file.empty()) {
    if (given_by_options(input))
      throw bad_input("--cost together with --forward, --input-backward, --weight-backward or --link",
                      "a file or single times", "leave one of the two out");
    return load_cost(input.file);
  }
  StageCost stage;
  stage.forward = {input.forward_ms.value_or(1)};
  stage.input_backward = {input.input_backward_ms.value_or(1)};
  stage.weight_backward = {input.weight_backward_ms.value_or(1)};
  stage.weight_activation_share = input.weight_activation_share.value_or(1);
  return uniform_cost(stages, stage, {{input.link_ms.value_or(0)}});
}

}  // namespace penstock::app
