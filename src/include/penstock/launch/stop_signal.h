/// \file
/// Signals that a launcher holds back or ignores. `watch_stop_signals` (run/train.h) is for those who train.
#pragma once

namespace penstock {

/// Blocks the signals in this thread and those that it starts: for a launcher, which reads them with `sigwait`.
void hold_stop_signals();

/// Ignores SIGPIPE, so that a run does not end when the program that reads its standard output or error has ended.
void ignore_broken_pipes();

}  // namespace penstock
