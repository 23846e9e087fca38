#include <algorithm>
#include <cstdio>
#include <exception>
#include <fmt/format.h>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/error.h"

#include "commands.h"
#include "schedule_commands.h"

namespace {

constexpr int run_failed = 1;
constexpr int bad_input = 2;

int complain(const std::string& message, int code) {
  fmt::print(stderr, "penstock: {}\n", message.substr(0, message.find('\n')));
  return code;
}

// "penstock schedule show": as far as the command line was understood.
std::string innermost_command(const CLI::App& app) {
  std::string name = "penstock";
  for (auto used = app.get_subcommands(); !used.empty(); used = used.front()->get_subcommands())
    name += " " + used.front()->get_name();
  return name;
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
      {"schedule", penstock::app::add_schedule_command(app)},
      {"simulate", penstock::app::add_simulate_command(app)}};
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return complain(
        fmt::format("{}; expected the options of `{}`; add --help to see them", message, innermost_command(app)),
        bad_input);
  }
  const auto chosen = std::find_if(commands.begin(), commands.end(),
                                   [&](const auto& command) { return app.got_subcommand(command.first); });
  return chosen->second();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const penstock::Error& error) {
    return complain(error.what(), error.kind() == penstock::ErrorKind::BadInput ? bad_input : run_failed);
  } catch (const std::bad_alloc&) {
    return complain("out of memory; expected a network that fits; lower --width, --batch or --context", run_failed);
  } catch (const std::exception& error) {
    return complain(fmt::format("a defect of penstock itself: {}; please report it", error.what()), run_failed);
  }
}
