#include "program.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fmt/format.h>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/thread.h"
#include "penstock/exec/memory.h"
#include "penstock/transport/backends.h"

#include "commands.h"
#include "help.h"
#include "mistakes.h"
#include "penstock_commit.h"
#include "plan_measurements.h"
#include "schedule_commands.h"
#include "shell_pages.h"
#include "standard_output.h"

namespace {

constexpr int run_failed = 1;
constexpr int bad_input = 2;

int complain(const std::string& message, int code) {
  fmt::print(stderr, "penstock: {}\n", message.substr(0, message.find('\n')));
  return code;
}

constexpr int signal_exit_code = 128;  // what shells add to the number of the signal that ended a program

// The code of an answer that nobody read to its end: that of a program which SIGPIPE has ended, and as quiet.
int unread() { return signal_exit_code + SIGPIPE; }

int run(int argc, char** argv) {
  CLI::App app("penstock: trains networks that are cut by layers into stages on different devices.", "penstock");
  app.require_subcommand(1);
  penstock::app::show_typed_names(app);
  const std::string version =
      fmt::format("{} (commit {}, libtorch {})", PENSTOCK_VERSION, penstock_commit, penstock::libtorch_version());
  app.set_version_flag("-V,--version", "penstock " + version);
  const std::vector<std::pair<std::string, penstock::app::Command>> commands{
      {"train", penstock::app::add_train_command(app, argc, argv)},
      {"eval", penstock::app::add_eval_command(app)},
      {"sample", penstock::app::add_sample_command(app)},
      {"export", penstock::app::add_export_command(app)},
      {"report", penstock::app::add_report_command(app)},
      {"bubbles", penstock::app::add_bubbles_command(app)},
      {"doctor", penstock::app::add_doctor_command(app)},
      {"plan", penstock::app::add_plan_command(app, penstock::app::plan_measurements())},
      {"schedule", penstock::app::add_schedule_command(app)},
      {"simulate", penstock::app::add_simulate_command(app)},
      {"tokenize", penstock::app::add_tokenize_command(app)},
      {"help", penstock::app::add_help_command(app)},
      {"shell-pages", penstock::app::add_shell_pages_command(app, version)}};
  penstock::app::show_examples(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return complain(penstock::app::explain(app, error), bad_input);
  } catch (const penstock::Error& error) {
    return complain(penstock::app::in_options(app, error.what()), bad_input);
  }
  const auto chosen = std::find_if(commands.begin(), commands.end(),
                                   [&](const auto& command) { return app.got_subcommand(command.first); });
  const int code = [&] {
    try {
      return chosen->second();
    } catch (const penstock::Error& error) {
      throw penstock::Error(error.kind(), penstock::app::in_options(app, error.what()));
    }
  }();
  // What was printed is what was asked for: a full disk behind the standard output is a failure like any other.
  // A run that a signal has stopped is saved, and says so by its code, even where the terminal has gone.
  if (code == 0 && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
    if (penstock::app::reader_has_gone()) return unread();
    return complain("the standard output cannot be written; expected a place with space; redirect it elsewhere",
                    run_failed);
  }
  return code;
}

int run_or_complain(int argc, char** argv) {
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
    if (penstock::app::reader_has_gone()) return unread();
    // Of the file system or the output: a name that is too long, a full disk behind a pipe.
    return complain(fmt::format("{}; expected files that can be read and written; check the paths and the space left",
                                error.what()),
                    run_failed);
  } catch (const std::exception& error) {
    return complain(fmt::format("a defect of penstock itself: {}; please report it", error.what()), run_failed);
  }
}

}  // namespace

int penstock::app::run_program(int argc, char** argv) { return ::run_or_complain(argc, argv); }
