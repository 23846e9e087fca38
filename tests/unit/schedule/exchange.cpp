// A hand for torch_exchange_test.py: writes a schedule of penstock's, or reads one of PyTorch's, plays and draws it,
// and writes it again.
//   schedule_exchange write NAME RANKS MICROBATCHES [lowered]
//   schedule_exchange read FILE [any-order]
#include <cstdlib>
#include <iostream>
#include <string_view>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/simulate.h"

namespace {

using namespace penstock;

int write(const std::vector<std::string>& arguments) {
  VerifiedSchedule schedule =
      verify(make_schedule(arguments.at(1), std::stoi(arguments.at(2)), std::stoi(arguments.at(3))));
  if (arguments.size() > 4) schedule = lower(schedule);
  std::cout << to_csv(schedule.get());
  return EXIT_SUCCESS;
}

int read(const std::vector<std::string>& arguments) {
  const Schedule schedule = parse_schedule(read_file(arguments.at(1)));
  const VerifyOptions options{.accumulation = arguments.size() > 2 ? Accumulation::AnyOrder : Accumulation::InOrder};
  const VerifiedSchedule lowered = lower(verify(schedule, options));
  const Timeline timeline = simulate(lowered, uniform_cost(schedule.stages, {{1}, {1}, {1}, {}, {}, {}, {}, {}}));
  if (makespan(timeline).count <= 0 || to_grid(timeline).empty()) return EXIT_FAILURE;
  std::cout << to_csv(schedule);
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    return arguments.at(0) == "write" ? write(arguments) : read(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return EXIT_FAILURE;
  }
}
