#include "shell_workers.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace penstock {

std::filesystem::path fresh_folder() {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / fmt::format("launch-{}-{}", test->name(), ::getpid());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

LaunchSettings shell_workers(int processes, const std::string& script) {
  LaunchSettings settings;
  settings.command = {"sh", "-c", script};
  settings.processes = processes;
  settings.first_back_off = {1};
  settings.longest_back_off = {4};
  return settings;
}

Told launch_and_listen(const LaunchSettings& settings, LaunchHooks hooks) {
  Told told;
  hooks.line = [&](const std::string& line) { told.lines.push_back(line); };
  told.result = launch(settings, hooks);
  return told;
}

bool comes_true(const std::function<bool()>& holds) {
  for (int i = 0; i < 6000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

namespace {

// Empty where the process that the file tells of ends meanwhile: inserting keeps the stream's failure to itself.
std::string content(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

}  // namespace

bool runs(int process_id) {
  const std::string text = content(fmt::format("/proc/{}/stat", process_id));
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.size() > name_end + 2 && text[name_end + 2] != 'Z' &&
         text[name_end + 2] != 'X';
}

int count_running_with(const std::string& word) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc"))
    // A zombie's command line is empty.
    if (content(entry.path() / "cmdline").find(word) != std::string::npos) ++count;
  return count;
}

std::vector<int> ids_in(const std::filesystem::path& folder) {
  std::vector<int> ids;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    ids.push_back(std::stoi(entry.path().filename().string()));
  return ids;
}

bool has_children() {
  siginfo_t info = {};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

}  // namespace penstock
