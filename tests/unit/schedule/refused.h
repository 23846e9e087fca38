/// \file
/// What a call refuses with.
#pragma once

#include <gtest/gtest.h>
#include <string>

#include "penstock/base/error.h"

namespace penstock {

/// The message of the BadInput error that `call` throws; a failed test and nothing where it throws none.
template <class Call>
std::string refused(const Call& call) {
  try {
    static_cast<void>(call());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return {};
}

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace penstock
