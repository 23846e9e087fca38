// `penstock plan` and `penstock tokenize` as a program of their own, for tests that have no libtorch: `plan_tool plan
// --cost …`.
#include <cstdio>
#include <exception>
#include <fmt/format.h>

#include "penstock/base/error.h"

#include "schedule_commands.h"

int main(int argc, char** argv) {
  try {
    CLI::App app("plan_tool");
    const penstock::app::Command plan = penstock::app::add_plan_command(app);
    const penstock::app::Command tokenize = penstock::app::add_tokenize_command(app);
    app.require_subcommand(1);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error) == 0 ? 0 : 2;
    }
    return app.got_subcommand("tokenize") ? tokenize() : plan();
  } catch (const penstock::Error& error) {
    fmt::print(stderr, "penstock: {}\n", error.what());
    return error.kind() == penstock::ErrorKind::BadInput ? 2 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "penstock: a defect: {}\n", error.what());
    return 1;
  }
}
