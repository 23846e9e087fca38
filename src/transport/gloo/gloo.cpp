#include <algorithm>
#include <fmt/format.h>

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "penstock/base/error.h"

#include "transport/gloo/backend.h"

namespace penstock {

bool has_backend() { return true; }

c10::intrusive_ptr<c10d::Backend> make_backend(const ProcessSettings& settings,
                                               const c10::intrusive_ptr<c10d::Store>& store) {
  const auto limit = std::chrono::milliseconds(static_cast<std::int64_t>(settings.join_timeout.count));
  const auto options = c10d::ProcessGroupGloo::Options::create(limit);
  options->threads = 1;  // for collectives, which are not used
  try {
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(settings.own_address));
    const auto own_keys =
        c10::make_intrusive<c10d::PrefixStore>(fmt::format("penstock/{}/gloo", settings.run_identity), store);
    return c10::make_intrusive<c10d::ProcessGroupGloo>(own_keys, settings.process, settings.processes, options);
  } catch (const c10::Error& error) {
    throw run_failed(std::string(error.what_without_backtrace()).substr(0, 120), "processes that reach each other",
                     "check the network between the nodes, and each process's own address");
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    throw run_failed(reason.substr(0, reason.find('\n')), "processes that reach each other",
                     "check the network between the nodes, and each process's own address");
  }
}

}  // namespace penstock
