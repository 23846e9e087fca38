#include "transport/device/reach_devices.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "penstock/base/error.h"

#include "transport/c10d/store.h"

namespace penstock {
namespace {

// libtorch's current one, where the name has no number.
at::Device numbered(const std::string& name) {
  try {
    const at::Device device(name);
    if (device.is_cpu() || device.has_index()) return device;
    return c10::impl::VirtualGuardImpl(device.type()).getDevice();
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    throw bad_input(fmt::format("device \"{}\": {}", name, reason.substr(0, reason.find('\n'))),
                    "one that libtorch knows", "change `devices`");
  }
}

}  // namespace

std::unique_ptr<DirectChannels> reach_devices(const DirectBackend& backend, const ProcessSettings& settings,
                                              const Exchange& exchange) {
  const auto ranks_of = [&](int process) { return ranks_of_process(process, settings.processes, settings.ranks); };
  const auto [first, end] = ranks_of(settings.process);
  std::vector<at::Device> devices;
  std::vector<std::string> identities;
  for (const std::string& name : settings.devices) {
    devices.push_back(numbered(name));
    identities.push_back(backend.identity_of(devices.back()));
  }
  identities.resize(end.index() - first.index());
  const std::vector<std::string> all = exchange("devices", fmt::format("{}", fmt::join(identities, "\n")));
  std::vector<std::string> by_rank;
  for (int process = 0; process < settings.processes; ++process) {
    const auto [begin_of_process, end_of_process] = ranks_of(process);
    std::istringstream lines(all[static_cast<std::size_t>(process)]);
    for (RankId rank = begin_of_process; rank < end_of_process; ++rank.value)
      std::getline(lines, by_rank.emplace_back());
  }
  if (devices.empty()) return nullptr;
  ProcessSettings again = settings;
  again.store_is_elsewhere = true;
  const auto open_again = [again] {
    return c10::make_intrusive<c10d::PrefixStore>(fmt::format("penstock/{}", again.run_identity), open_store(again));
  };
  auto channels = std::make_unique<DirectChannels>(backend, open_again, std::move(by_rank), std::move(devices), first);
  if (!channels->reaches_any({0}, first) && !channels->reaches_any(end, {settings.ranks})) return nullptr;
  return channels;
}

}  // namespace penstock
