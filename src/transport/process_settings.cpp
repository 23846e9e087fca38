#include <algorithm>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/transport/c10d.h"

namespace penstock {

void check_process_settings(const ProcessSettings& settings) {
  if (settings.processes < 1)
    throw bad_input(fmt::format("{} processes", settings.processes), "at least 1", "raise `processes`");
  if (settings.process < 0 || settings.process >= settings.processes)
    throw bad_input(fmt::format("process {} of {}", settings.process, settings.processes),
                    fmt::format("0 to {}", settings.processes - 1), "give each process a number below their count");
  if (settings.ranks < settings.processes)
    throw bad_input(fmt::format("{} for {} processes", counted(settings.ranks, "rank"), settings.processes),
                    "at least one rank for each process", "lower `processes` or raise `stages`");
  const int least_port = settings.listening_socket >= 0 ? 0 : 1;
  constexpr int largest_port = 65535;
  if (settings.port < least_port || settings.port > largest_port)
    throw bad_input(fmt::format("the port {}", settings.port), fmt::format("{} to {}", least_port, largest_port),
                    "set MASTER_PORT to a free port of process 0's machine");
  const auto [first, end] = ranks_of_process(settings.process, settings.processes, settings.ranks);
  if (!settings.devices.empty() && settings.devices.size() != end.index() - first.index())
    throw bad_input(counted(std::ssize(settings.devices), "device"),
                    fmt::format("one for each of the process's {}", counted(end.value - first.value, "rank")),
                    "name the devices of its own ranks, or none");
  if (settings.address.empty())
    throw bad_input("no address of process 0", "a host's name or number", "set MASTER_ADDR");
}

int ranks_of_machine(const ProcessSettings& settings) {
  const int most_of_a_process = (settings.ranks + settings.processes - 1) / settings.processes;
  const int processes = settings.processes_here > 0 ? settings.processes_here : settings.processes;
  return std::min(processes * most_of_a_process, settings.ranks);
}

std::pair<RankId, RankId> ranks_of_process(int process, int processes, int ranks) {
  const auto begin = [&](std::int64_t index) { return RankId{static_cast<std::int32_t>(index * ranks / processes)}; };
  return {begin(process), begin(process + std::int64_t{1})};
}

}  // namespace penstock
