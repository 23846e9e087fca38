#include <fmt/format.h>
#include <system_error>

#include "penstock/base/error.h"
#include "penstock/base/thread.h"
#include "penstock/transport/c10d.h"

#include "transport/c10d/linked_processes.h"
#include "transport/device/direct.h"

namespace penstock {
namespace {

// Gloo and c10d throw what they like where another process ends while links are made.
Error lost_while_meeting(const std::exception& error) {
  const std::string reason = error.what();
  return run_failed(fmt::format("a process lost while the processes came together: {}",
                                shortened(reason.substr(0, reason.find('\n')), 200)),
                    "all processes of the run", "see the other processes' own errors");
}

}  // namespace

// Process 0 has, for each other process, a connection to the store besides that of Gloo and the shared memory; Gloo may
// have two connections for a moment, while both sides call.
int ProcessGroup::descriptors_for(int processes) {
  constexpr int own = 24;
  constexpr int for_each_process = 4;
  return processes == 1 ? 0 : own + for_each_process * (processes - 1);
}

ProcessGroup::ProcessGroup(const ProcessSettings& settings) {
  check_process_settings(settings);
  try {
    processes_ = std::make_unique<LinkedProcesses>(settings, nccl());
  } catch (const Error&) {
    throw;
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) throw no_room_for_thread(error);
    throw lost_while_meeting(error);
  } catch (const std::exception& error) {
    throw lost_while_meeting(error);
  }
}

ProcessGroup::~ProcessGroup() = default;

int ProcessGroup::process() const { return processes_->settings().process; }
int ProcessGroup::processes() const { return processes_->settings().processes; }
int ProcessGroup::ranks() const { return processes_->settings().ranks; }

std::vector<std::unique_ptr<Transport>> ProcessGroup::take_ends() { return processes_->take_ends(); }

void ProcessGroup::abort(const std::string& reason) { processes_->abort(reason); }

std::vector<std::string> ProcessGroup::exchange(const std::string& name, const std::string& text) {
  return processes_->exchange(name, text);
}

std::vector<LinkReport> ProcessGroup::report() const { return processes_->report(); }

}  // namespace penstock
