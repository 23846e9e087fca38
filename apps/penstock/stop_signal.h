// SIGHUP, SIGINT and SIGTERM ask the run to stop after its step. What follows within a second is the same request.
#pragma once

namespace penstock::app {

// What a signal does that comes a second or more after the first.
enum class Repeats {
  Ignore,  // whoever started this process has a way to end it
  Kill,    // the process, at once and unsaved
};

// SIGHUP stays ignored where it is.
void watch_stop_signals(Repeats repeats);
// For who reads them elsewhere: they wait, and end nothing.
void hold_stop_signals();
// The first that came, 0 before.
[[nodiscard]] int stop_signal();

// Whoever reads the standard output or error may go: a run does not end for that, and what it makes is saved.
void go_on_without_readers();

}  // namespace penstock::app
