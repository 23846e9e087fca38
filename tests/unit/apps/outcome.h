// What a command line came to, run in this process.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <gtest/gtest.h>
#include <string>

#include "penstock/base/error.h"

#include "mistakes.h"

namespace penstock::app {

struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
};

/// Parses `line` and runs `command`; an Error becomes its exit code and message, as the program makes it.
inline Outcome outcome_of(CLI::App& app, const std::string& line, const std::function<int()>& command) {
  Outcome outcome;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  std::string message;
  try {
    app.parse(line);
    outcome.code = command();
  } catch (const Error& error) {
    outcome.code = error.kind() == ErrorKind::BadInput ? 2 : 1;
    message = in_options(app, error.what());
  } catch (const CLI::ParseError& error) {
    outcome.code = 2;
    message = error.what();
  }
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr() + message;
  return outcome;
}

}  // namespace penstock::app
