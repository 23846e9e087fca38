#include "transport/c10d/rendezvous.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <random>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/transport/c10d.h"
#include "penstock/transport/transport.h"

namespace penstock {
namespace {

std::string drawn_identity() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

Error store_is_gone() {
  return run_failed("process 0 gone or stopped while the processes came together", "all processes of the run",
                    "see process 0's own error");
}

}  // namespace

std::string name_of_process(int process, const ProcessSettings& settings) {
  const auto [first, end] = ranks_of_process(process, settings.processes, settings.ranks);
  if (end.value - first.value == 1) return fmt::format("process {} (rank {})", process, first.value);
  return fmt::format("process {} (ranks {} to {})", process, first.value, end.value - 1);
}

Rendezvous::Rendezvous(c10::intrusive_ptr<c10d::Store> store, ProcessSettings settings, RendezvousWaits waits)
    : store_(std::move(store)), settings_(std::move(settings)), waits_(std::move(waits)) {}

std::string Rendezvous::key_of(const std::string& name, int process) const {
  return fmt::format("penstock/{}/{}/{}", settings_.run_identity, name, process);
}

Milliseconds Rendezvous::deadline() const { return waits_.clock.now() + settings_.join_timeout; }

// Drawn by process 0.
std::string Rendezvous::agreed_identity() {
  const std::string key = "penstock/identity";
  const Milliseconds end = deadline();
  try {
    if (settings_.process == 0) store_->set(key, drawn_identity());
    if (comes(key, end)) return store_->get_to_str(key);
  } catch (const std::exception&) {
    throw store_is_gone();
  }
  throw run_failed(fmt::format("no process 0 within {:.0f} s", settings_.join_timeout.count / 1000),
                   "all processes of the run", "start process 0");
}

// Says who is missing and who is there twice, which the process group would not.
void Rendezvous::meet() {
  if (settings_.run_identity.empty()) settings_.run_identity = agreed_identity();
  std::int64_t count = 0;
  try {
    count = store_->add(key_of("joined", settings_.process), 1);
  } catch (const std::exception&) {
    throw store_is_gone();
  }
  if (count > 1)
    throw bad_input(fmt::format("another process {} of this run", settings_.process), "one process for each number",
                    "give each process its own RANK");
  static_cast<void>(exchange("joined", fmt::format("{} ranks", settings_.ranks)));
  agree(0);
  meeting_ = false;
}

// The first word counts: that all are there, and from then on they stop together after a step, or that one was asked to
// stop before, and nobody waits for the others any more. \param stop_signal 0: all are there.
void Rendezvous::agree(int stop_signal) {
  int agreed = 0;
  try {
    agreed = std::stoi(store_->compareSet(key_of("decision", 0), std::string(), std::to_string(stop_signal)));
    if (agreed == 0) return;
    store_->set(key_of("left", settings_.process), std::string("left"));
    if (settings_.process == 0) see_others_leave();
  } catch (const std::exception&) {
    throw store_is_gone();
  }
  throw StoppedWhileJoining(agreed);
}

// They read the decision from this process.
void Rendezvous::see_others_leave() {
  constexpr Milliseconds longest{5'000};
  const Milliseconds end = waits_.clock.now() + longest;
  for (int process = 1; process < settings_.processes; ++process)
    while (!store_->check({key_of("left", process)}) && waits_.clock.now() < end) waits_.pause();
}

void Rendezvous::leave_if_asked() {
  // Process 0 is there: it waits no longer than until it has named the run.
  if (settings_.run_identity.empty()) return;
  const int own = settings_.asked_to_stop ? settings_.asked_to_stop() : 0;
  if (own != 0 || store_->check({key_of("decision", 0)})) agree(own);
}

// Looks now and then, so that it ends soon after another process has. Whether it came in time.
bool Rendezvous::comes(const std::string& key, Milliseconds deadline) {
  while (!store_->check({key})) {
    waits_.check();
    if (meeting_) leave_if_asked();
    if (waits_.clock.now() >= deadline) return false;
    waits_.pause();
  }
  return true;
}

std::vector<std::string> Rendezvous::exchange(const std::string& name, const std::string& text) {
  const Milliseconds end = deadline();
  std::vector<std::string> texts;
  std::vector<std::string> missing;
  try {
    store_->set(key_of(name, settings_.process), text);
    for (int process = 0; process < settings_.processes; ++process) {
      if (comes(key_of(name, process), end))
        texts.push_back(store_->get_to_str(key_of(name, process)));
      else
        missing.push_back(name_of_process(process, settings_));
    }
  } catch (const Aborted&) {
    throw;
  } catch (const StoppedWhileJoining&) {
    throw;
  } catch (const std::exception&) {
    waits_.check();
    throw store_is_gone();
  }
  if (missing.empty()) return texts;
  throw run_failed(fmt::format("no {} within {:.0f} s", fmt::join(missing, ", "), settings_.join_timeout.count / 1000),
                   fmt::format("all {} processes", settings_.processes),
                   "see their own errors, or start them; `join_timeout` waits longer");
}

}  // namespace penstock
