// SIGINT and SIGTERM ask the run to stop after its step; a second one ends the program at once.
#pragma once

namespace penstock::app {

void watch_stop_signals();
[[nodiscard]] bool stop_requested();
// 128 + the signal's number, as shells have it.
[[nodiscard]] int stop_exit_code();

}  // namespace penstock::app
