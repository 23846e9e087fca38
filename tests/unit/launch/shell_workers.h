// Workers that are shell scripts, and what is left of them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "penstock/launch/launch.h"

namespace penstock {

// A folder of the running test's own, empty.
[[nodiscard]] std::filesystem::path fresh_folder();

// Workers that run a script each, with pauses so short that no test waits for them.
[[nodiscard]] LaunchSettings shell_workers(int processes, const std::string& script);

// A launch, and every line that it told.
struct Told {
  LaunchResult result;
  std::vector<std::string> lines;
};
[[nodiscard]] Told launch_and_listen(const LaunchSettings& settings, LaunchHooks hooks = {});

// Waits until something holds; false after a minute, which no machine needs.
[[nodiscard]] bool comes_true(const std::function<bool()>& holds);

// Whether a process runs: a zombie does not.
[[nodiscard]] bool runs(int process_id);

// The process ids that workers wrote into `folder`, a file each that is named by the number.
[[nodiscard]] std::vector<int> ids_in(const std::filesystem::path& folder);

// How many processes have `word` in their command line.
[[nodiscard]] int count_running_with(const std::string& word);

// Whether this process has children, zombies included.
[[nodiscard]] bool has_children();

}  // namespace penstock
