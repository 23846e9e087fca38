#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/thread.h"
#include "penstock/exec/memory.h"

#include "commands.h"
#include "plan_measurements.h"
#include "schedule_commands.h"

namespace {

constexpr int run_failed = 1;
constexpr int bad_input = 2;

int complain(const std::string& message, int code) {
  fmt::print(stderr, "penstock: {}\n", message.substr(0, message.find('\n')));
  return code;
}

// The command as far as the command line was understood: "penstock schedule show".
struct Innermost {
  std::string name = "penstock";
  const CLI::App* command = nullptr;
};

Innermost innermost_command(const CLI::App& app) {
  Innermost innermost{"penstock", &app};
  for (auto used = app.get_subcommands(); !used.empty(); used = used.front()->get_subcommands()) {
    innermost.command = used.front();
    innermost.name += " " + used.front()->get_name();
  }
  return innermost;
}

// "got 'shcedule', expected one of train, …": where a command's name should stand.
std::string no_such_command(const Innermost& innermost) {
  std::vector<std::string> known;
  for (const CLI::App* command : innermost.command->get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(command->get_name());
  const std::vector<std::string> rest = innermost.command->remaining(/*recurse=*/true);
  return fmt::format("{} after `{}`; expected one of {}; `{} --help` says what each does",
                     rest.empty() ? "nothing" : fmt::format("'{}'", rest.front()), innermost.name,
                     fmt::join(known, ", "), innermost.name);
}

int refuse(const CLI::App& app, const CLI::ParseError& error) {
  const Innermost innermost = innermost_command(app);
  if (!innermost.command->get_subcommands([](const CLI::App*) { return true; }).empty())
    return complain(no_such_command(innermost), bad_input);
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  std::string message = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !rest.empty()
                            ? fmt::format("'{}' is unknown", rest.front())
                            : error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  return complain(fmt::format("{}; expected the options of `{}`; add --help to see them", message, innermost.name),
                  bad_input);
}

int run(int argc, char** argv) {
  CLI::App app("penstock: trains networks that are cut by layers into stages on different devices.", "penstock");
  app.require_subcommand(1);
  app.set_version_flag("--version", PENSTOCK_VERSION);
  const std::vector<std::pair<std::string, penstock::app::Command>> commands{
      {"train", penstock::app::add_train_command(app, argc, argv)},
      {"eval", penstock::app::add_eval_command(app)},
      {"sample", penstock::app::add_sample_command(app)},
      {"bubbles", penstock::app::add_bubbles_command(app)},
      {"doctor", penstock::app::add_doctor_command(app)},
      {"plan", penstock::app::add_plan_command(app, penstock::app::plan_measurements())},
      {"schedule", penstock::app::add_schedule_command(app)},
      {"simulate", penstock::app::add_simulate_command(app)}};
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return refuse(app, error);
  }
  const auto chosen = std::find_if(commands.begin(), commands.end(),
                                   [&](const auto& command) { return app.got_subcommand(command.first); });
  const int code = chosen->second();
  // What was printed is what was asked for: a full disk behind the standard output is a failure like any other.
  // A run that a signal has stopped is saved, and says so by its code, even where the terminal has gone.
  if (code == 0 && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0))
    return complain("the standard output cannot be written; expected a place with space; redirect it elsewhere",
                    run_failed);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  // A file beyond the limit of its size (ulimit -f) is a write that fails, as on a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const penstock::Error& error) {
    return complain(error.what(), error.kind() == penstock::ErrorKind::BadInput ? bad_input : run_failed);
  } catch (const std::bad_alloc&) {
    return complain(
        "out of memory; expected sizes that fit; lower --width, --batch or --context, or a schedule's --ranks or "
        "--microbatches",
        run_failed);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again)
      return complain(penstock::no_room_for_thread(error).what(), run_failed);
    // Of the file system or the output: a name that is too long, a full disk behind a pipe.
    return complain(fmt::format("{}; expected files that can be read and written; check the paths and the space left",
                                error.what()),
                    run_failed);
  } catch (const std::exception& error) {
    return complain(fmt::format("a defect of penstock itself: {}; please report it", error.what()), run_failed);
  }
}
