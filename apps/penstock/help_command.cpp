#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <string>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/nearest.h"

#include "help.h"
#include "mistakes.h"
#include "schedule_commands.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;

// The pages: beside an installed program in its prefix, beside one that was built in the tree. Empty: not there.
fs::path documents_folder() {
  std::error_code failure;
  for (fs::path folder = fs::read_symlink("/proc/self/exe", failure).parent_path(); folder.has_relative_path();
       folder = folder.parent_path())
    for (const fs::path& docs : {folder / "share/doc/penstock/docs", folder / "docs"})
      if (fs::exists(docs / "glossary.md", failure)) return docs;
  return {};
}

// Through the user's pager where somebody reads on a terminal.
void show(const std::string& text) {
  const char* pager = std::getenv("PAGER");  // NOLINT(concurrency-mt-unsafe): before any thread
  if (pager == nullptr || *pager == '\0' || ::isatty(STDOUT_FILENO) != 1) {
    fmt::print("{}", text);
    return;
  }
  std::fflush(stdout);
  // A pager that is left early ends the pipe.
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  if (std::FILE* reader = ::popen(pager, "w"); reader != nullptr) {  // NOLINT(cert-env33-c): PAGER is a command
    std::fwrite(text.data(), 1, text.size(), reader);
    ::pclose(reader);
  }
  std::signal(SIGPIPE, before);
}

int run(const CLI::App& app, const std::vector<std::string>& words) {
  if (words.empty()) {
    // As its --help has it, the topics at its end.
    show(app.get_formatter()->make_help(&app, "penstock", CLI::AppFormatMode::Normal));
    return 0;
  }
  const CLI::App* command = &app;
  std::string path = "penstock";
  std::string parents;
  for (const std::string& word : words) {
    const auto inner = command->get_subcommands([&](const CLI::App* known) { return known->get_name() == word; });
    if (inner.empty()) {
      if (command != &app) throw Error(ErrorKind::BadInput, no_such_command(*command, path, word));
      break;
    }
    parents = path;
    path.append(" ").append(word);
    command = inner.front();
  }
  if (command != &app) {
    show(command->help(parents));
    return 0;
  }
  const fs::path documents = documents_folder();
  const std::vector<std::string> topics = topics_in(documents);
  const std::string& topic = words.front();
  if (words.size() == 1 && std::find(topics.begin(), topics.end(), topic) != topics.end()) {
    show(read_file(documents / fmt::format("{}.md", topic)));
    return 0;
  }
  std::vector<std::string> known = topics;
  for (const CLI::App* listed : app.get_subcommands([](const CLI::App* one) { return !one->get_group().empty(); }))
    known.push_back(listed->get_name());
  throw bad_input(fmt::format("'{}' after `penstock help`", shortened(fmt::format("{}", fmt::join(words, " ")))),
                  topics.empty() ? "a command" : fmt::format("a command, or a topic: {}", fmt::join(topics, ", ")),
                  fmt::format("`penstock help` lists both{}", did_you_mean(topic, known)));
}

}  // namespace

std::vector<std::string> topics_in(const fs::path& folder) {
  std::vector<std::string> topics;
  if (folder.empty()) return topics;
  std::error_code problem;
  fs::directory_iterator entries(folder, problem);
  for (const fs::directory_iterator end; !problem && entries != end; entries.increment(problem))
    if (entries->path().extension() == ".md") topics.push_back(entries->path().stem().string());
  if (problem)
    throw bad_input(fmt::format("cannot read {}: {}", folder.string(), problem.message()),
                    "the folder of penstock's pages", "check its permissions, or install penstock again");
  std::sort(topics.begin(), topics.end());
  return topics;
}

Command add_help_command(CLI::App& app) {
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* help =
      app.add_subcommand("help", "Says what a command does, as its --help, or opens a page of the documentation");
  help->add_option("words", *words, "A command, such as: schedule show; or a topic, such as: glossary");
  app.footer([] {
    try {
      const std::vector<std::string> topics = topics_in(documents_folder());
      return topics.empty() ? std::string() : fmt::format("Topics (penstock help TOPIC): {}", fmt::join(topics, ", "));
    } catch (const Error&) {
      return std::string();  // The options are worth showing without the pages; `penstock help TOPIC` says what is
                             // wrong.
    }
  });
  return [words, &app] { return run(app, *words); };
}

}  // namespace penstock::app
