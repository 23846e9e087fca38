/// \file
/// SIGHUP, SIGINT and SIGTERM as requests to end after the step: what `TrainObserver::stop_signal` is asked for.
#pragma once

namespace penstock {

/// What a signal does that comes a second or more after the first. What follows within a second is the same request:
/// `timeout` and supervisors send a signal to a process and to its group.
enum class Repeats {
  Ignore,  ///< for a worker, which its launcher can end
  Kill,    ///< ends the process at once; the last update is not saved
};

/// Installs the process's handlers, and ignores SIGPIPE (`ignore_broken_pipes`). SIGHUP stays ignored if it is, as
/// under nohup. Call it before other threads start.
void watch_stop_signals(Repeats repeats = Repeats::Kill);

/// Blocks the signals in this thread and those that it starts: for a launcher, which reads them with `sigwait`.
void hold_stop_signals();

/// The first signal that came since `watch_stop_signals`, 0 before. May be called from any thread.
[[nodiscard]] int stop_signal();

/// Ignores SIGPIPE, so that a run does not end when the program that reads its standard output or error has ended.
void ignore_broken_pipes();

}  // namespace penstock
