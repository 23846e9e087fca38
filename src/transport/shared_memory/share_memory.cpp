#include "transport/shared_memory/share_memory.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sstream>
#include <string>

namespace penstock {

// The lower one of two processes makes the memory.
std::vector<std::unique_ptr<SharedMemory>> share_memory(const ProcessSettings& settings, const Exchange& exchange) {
  const auto processes = static_cast<std::size_t>(settings.processes);
  const auto own = static_cast<std::size_t>(settings.process);
  std::vector<std::unique_ptr<SharedMemory>> shared(processes);
  const std::string machine = settings.shared_memory ? machine_name() : "";
  const std::vector<std::string> machines = exchange("machine", machine);
  std::vector<std::string> offers(processes);
  for (std::size_t other = own + 1; other < processes; ++other) {
    if (machine.empty() || machines[other] != machine) continue;
    shared[other] = SharedMemory::make();
    if (shared[other]) offers[other] = shared[other]->name();
  }
  const std::vector<std::string> all_offers = exchange("shared memory", fmt::format("{}", fmt::join(offers, "\n")));
  std::string taken(processes, 'n');
  for (std::size_t other = 0; other < own; ++other) {
    std::istringstream lines(all_offers[other]);
    std::string offer;
    for (std::size_t line = 0; line <= own; ++line) std::getline(lines, offer);
    if (!machine.empty() && machines[other] == machine) shared[other] = SharedMemory::open(offer);
    if (shared[other]) taken[other] = 'y';
  }
  const std::vector<std::string> all_taken = exchange("shared memory taken", taken);
  for (std::size_t other = own + 1; other < processes; ++other)
    if (all_taken[other].size() != processes || all_taken[other][own] != 'y') shared[other].reset();
  return shared;
}

}  // namespace penstock
