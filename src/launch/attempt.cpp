#include "attempt.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <poll.h>
#include <random>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

#include "keeper.h"
#include "listening_socket.h"
#include "messages.h"
#include "worker_process.h"

namespace penstock::launching {
namespace {

// `timeout` and supervisors send a signal to a process and to its group: that is one request, not two.
constexpr Milliseconds one_request = {1'000};
constexpr int bad_input_code = 2;
// What shells add to the number of a signal.
constexpr int signal_code = 128;
// How often workers that may stand still are looked at, for each such time.
constexpr double looks = 10;

std::string random_identity() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", static_cast<std::uint32_t>(device()), static_cast<std::uint32_t>(device()));
}

class Attempt {
 public:
  Attempt(const LaunchSettings& settings, const LaunchHooks& hooks, const LaunchAttempt& attempt,
          const SignalWatch& signals, const Clock& clock)
      : settings_(settings),
        hooks_(hooks),
        attempt_(attempt),
        signals_(signals),
        clock_(clock),
        relay_(attempt.processes, settings.verbose, hooks.line),
        keeper_(attempt.processes) {
    if (settings.standstill) joined_.emplace();
  }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  Attempt(Attempt&&) = delete;
  Attempt& operator=(Attempt&&) = delete;
  // Nobody is left behind, whatever was thrown.
  ~Attempt() {
    signal_running(SIGKILL);
    for (const Worker& worker : workers_) reap(worker.process);
  }

  void start(const std::vector<std::string>& command);
  AttemptEnd watch();

 private:
  struct Worker {
    WorkerProcess process;
    LineReader lines;
    bool running = true;
    std::optional<Milliseconds> stopped_at = {};
  };

  void signal_running(int signal);
  // Asks all to leave, and notes until when they may.
  void ask_to_leave(int signal);
  // Somebody wants the run to stop: a signal to the launcher, or one to a worker, which has told the others.
  void take_stop(int signal);
  void kill_rest();
  // Ends those that stand still while all come together.
  void look_for_stopped();
  void wait_for_news();
  void read_signals();
  void read_messages(int rank);
  // Takes note of every worker that has ended since.
  void collect(const std::vector<int>& ended);
  void judge(std::vector<WorkerEnd> ends);
  [[nodiscard]] bool has_left(const WorkerEnd& end) const;
  void name_failure(const WorkerEnd& end);
  [[nodiscard]] int timeout() const;

  const LaunchSettings& settings_;
  const LaunchHooks& hooks_;
  LaunchAttempt attempt_;
  const SignalWatch& signals_;
  const Clock& clock_;
  MessageRelay relay_;
  Keeper keeper_;
  std::optional<Pipe> joined_;   // until no worker holds its other end: all have met, or are gone
  std::vector<Worker> workers_;  // by rank
  std::size_t running_ = 0;
  bool leaving_ = false;
  std::optional<Milliseconds> kill_at_;
  Milliseconds stop_asked_at_ = {};
  AttemptEnd end_;
};

void Attempt::start(const std::vector<std::string>& command) {
  ListeningSocket socket = listen_on(settings_.address);
  const std::string identity = random_identity();
  workers_.reserve(as_size(attempt_.processes));
  for (int rank = 0; rank < attempt_.processes; ++rank) {
    WorkerStart start;
    start.command = command;
    if (!settings_.name.empty())
      start.shown_name = fmt::format("{} worker {} of {}", settings_.name, rank, attempt_.processes);
    start.environment = {fmt::format("RANK={}", rank),
                         fmt::format("LOCAL_RANK={}", rank),
                         fmt::format("WORLD_SIZE={}", attempt_.processes),
                         fmt::format("LOCAL_WORLD_SIZE={}", attempt_.processes),
                         "MASTER_ADDR=" + socket.reached_at,
                         fmt::format("MASTER_PORT={}", socket.port),
                         "PENSTOCK_RUN_IDENTITY=" + identity,
                         fmt::format("PENSTOCK_ATTEMPT={}", attempt_.number)};
    if (rank == 0) {
      start.listen_descriptor = socket.descriptor.number();
      start.environment.push_back(fmt::format("PENSTOCK_LISTEN_DESCRIPTOR={}", start.listen_descriptor));
    }
    start.keeper_descriptor = keeper_.descriptor();
    if (joined_) {
      start.joined_descriptor = joined_->write_end.number();
      start.environment.push_back(fmt::format("PENSTOCK_JOINED_DESCRIPTOR={}", start.joined_descriptor));
    }
    start.drop_output = rank != 0 && !settings_.verbose;
    start.signal_mask = signals_.mask_before();
    start.hold_stop_signals = settings_.hold_stop_signals;
    workers_.push_back({start_worker(start), {}, true});
    ++running_;
    // From now on the port is rank 0's alone and closes with it.
    if (rank == 0) socket.descriptor.close();
    if (hooks_.started) hooks_.started(rank, workers_.back().process.id);
  }
  if (joined_) joined_->write_end.close();
}

void Attempt::signal_running(int signal) {
  for (const Worker& worker : workers_)
    if (worker.running) signal_group(worker.process, signal);
}

void Attempt::ask_to_leave(int signal) {
  if (!leaving_) kill_at_ = clock_.now() + settings_.stop_grace;
  leaving_ = true;
  signal_running(signal);
  // A process that was stopped leaves only when it runs again.
  signal_running(SIGCONT);
}

void Attempt::take_stop(int signal) {
  end_.stop_signal = signal;
  stop_asked_at_ = clock_.now();
  ask_to_leave(signal);
}

void Attempt::look_for_stopped() {
  for (int rank = 0; rank < attempt_.processes; ++rank) {
    Worker& worker = entry(workers_, rank);
    if (!worker.running || !is_stopped(worker.process)) {
      worker.stopped_at.reset();
      continue;
    }
    const Milliseconds now = clock_.now();
    if (!worker.stopped_at) worker.stopped_at = now;
    if (now - *worker.stopped_at < *settings_.standstill) continue;
    relay_.add(rank, fmt::format("penstock: stopped for {} (SIGSTOP, or a debugger) while the processes came together",
                                 to_string(*settings_.standstill)));
    signal_group(worker.process, SIGKILL);
  }
}

void Attempt::kill_rest() {
  kill_at_.reset();
  for (int rank = 0; rank < attempt_.processes; ++rank)
    if (entry(workers_, rank).running) end_.killed.push_back(rank);
  signal_running(SIGKILL);
}

int Attempt::timeout() const {
  if (!kill_at_ && !joined_) return -1;
  constexpr double longest_ms = 1e9;
  double left = kill_at_ ? std::ceil((*kill_at_ - clock_.now()).count) : longest_ms;
  if (joined_) left = std::min(left, std::ceil(settings_.standstill->count / looks));
  return static_cast<int>(std::clamp(left, 0.0, longest_ms));
}

AttemptEnd Attempt::watch() {
  while (running_ > 0) {
    wait_for_news();
    if (joined_ && !leaving_) look_for_stopped();
    if (kill_at_ && clock_.now() >= *kill_at_) kill_rest();
  }
  if (end_.failure) end_.lost = std::max(1, end_.lost);
  return std::move(end_);
}

void Attempt::wait_for_news() {
  std::vector<pollfd> polled = {{signals_.descriptor(), POLLIN, 0},
                                {joined_ ? joined_->read_end.number() : -1, POLLIN, 0}};
  for (const Worker& worker : workers_) {
    // A negative number is passed over.
    polled.push_back({worker.running ? worker.process.ended.number() : -1, POLLIN, 0});
    polled.push_back({worker.running ? worker.process.messages.number() : -1, POLLIN, 0});
  }
  if (::poll(polled.data(), polled.size(), timeout()) <= 0) return;
  if (polled[0].revents != 0) read_signals();
  // Nobody writes to it: this is its end.
  if (polled[1].revents != 0) joined_.reset();
  std::vector<int> ended;
  for (int rank = 0; rank < attempt_.processes; ++rank) {
    const auto place = as_index(rank) * 2 + 2;
    if (polled[place + 1].revents != 0) read_messages(rank);
    if (polled[place].revents != 0) ended.push_back(rank);
  }
  collect(ended);
}

void Attempt::read_signals() {
  while (const int signal = signals_.next()) {
    if (end_.stop_signal == 0) {
      take_stop(signal);
    } else if (clock_.now() - stop_asked_at_ >= one_request) {
      kill_rest();
    }
  }
}

void Attempt::read_messages(int rank) {
  Worker& worker = entry(workers_, rank);
  if (!worker.process.messages.open()) return;
  const auto pass_on = [&](const std::string& line) { relay_.add(rank, line); };
  std::array<char, 16'384> piece = {};
  // At most what a pipe holds at once: a worker that never stops writing must not keep the launcher from the others.
  for (int i = 0; i < 8; ++i) {
    const ssize_t size = ::read(worker.process.messages.number(), piece.data(), piece.size());
    if (size > 0) {
      worker.lines.add({piece.data(), as_size(size)}, pass_on);
      continue;
    }
    // The other end is closed: nothing will come, and poll would say so for ever.
    if (size == 0) worker.process.messages.close();
    return;
  }
}

void Attempt::collect(const std::vector<int>& ended) {
  std::vector<WorkerEnd> ends;
  for (const int rank : ended) {
    Worker& worker = entry(workers_, rank);
    // What it started and left behind ends with it, and holds its standard error open no longer.
    signal_group(worker.process, SIGKILL);
    read_messages(rank);
    worker.lines.finish([&](const std::string& line) { relay_.add(rank, line); });
    worker.process.messages.close();
    worker.running = false;
    --running_;
    const Ending ending = ending_of(worker.process);
    if (ending.exit_code == 0 && !kill_at_) kill_at_ = clock_.now() + settings_.finish_grace;
    if (ending.exit_code != 0) ends.push_back({rank, ending.exit_code, ending.signal, relay_.last_line(rank)});
  }
  if (!ends.empty()) judge(std::move(ends));
}

// `ends` are failures that were seen at one time. A worker that a signal ended comes before those that returned: that
// it was gone is what the others may have failed of.
void Attempt::judge(std::vector<WorkerEnd> ends) {
  std::sort(ends.begin(), ends.end(), [](const WorkerEnd& a, const WorkerEnd& b) {
    return std::tuple(a.signal == 0, a.rank) < std::tuple(b.signal == 0, b.rank);
  });
  // A worker that was asked to stop has told the others, and says which signal it was.
  const auto stopped = std::find_if(ends.begin(), ends.end(), [](const WorkerEnd& end) {
    return end.exit_code && is_stop_signal(*end.exit_code - signal_code);
  });
  if (end_.stop_signal == 0 && !leaving_ && stopped != ends.end()) take_stop(*stopped->exit_code - signal_code);
  if (end_.stop_signal != 0) {
    for (const WorkerEnd& end : ends)
      if (!has_left(end)) name_failure(end);
    return;
  }
  const auto bad =
      std::find_if(ends.begin(), ends.end(), [](const auto& end) { return end.exit_code == bad_input_code; });
  const bool known_bad = end_.failure && end_.failure->exit_code == bad_input_code;
  if (bad != ends.end() && !known_bad) end_.failure.reset();
  name_failure(bad == ends.end() ? ends.front() : *bad);
  // Workers that abort because others are gone are not lost; one that somebody else kills meanwhile is.
  const bool all_killed = !end_.killed.empty();
  for (const WorkerEnd& end : ends)
    if (leaving_ ? end.signal == SIGKILL && !all_killed : end.signal != 0) ++end_.lost;
  if (!leaving_) ask_to_leave(SIGTERM);
}

// Who was asked to leave returns 0 or says that it was asked; anything else may mean that nothing was saved.
bool Attempt::has_left(const WorkerEnd& end) const {
  if (end.exit_code) return is_stop_signal(*end.exit_code - signal_code);
  const bool killed = std::find(end_.killed.begin(), end_.killed.end(), end.rank) != end_.killed.end();
  return killed || (is_stop_signal(end.signal) && !settings_.hold_stop_signals);
}

void Attempt::name_failure(const WorkerEnd& end) {
  if (end_.failure) return;
  end_.failure = end;
  relay_.show_held(end.rank);
}

}  // namespace

AttemptEnd run_attempt(const LaunchSettings& settings, const LaunchHooks& hooks, const LaunchAttempt& attempt,
                       const std::vector<std::string>& command, const SignalWatch& signals, const Clock& clock) {
  Attempt running(settings, hooks, attempt, signals, clock);
  running.start(command);
  return running.watch();
}

}  // namespace penstock::launching
