#include "penstock/base/error.h"

namespace penstock {
namespace {

std::string sentence(const std::string& got, const std::string& expected, const std::string& remedy) {
  return got + "; expected " + expected + "; " + remedy;
}

}  // namespace

Error bad_input(const std::string& got, const std::string& expected, const std::string& remedy) {
  return {ErrorKind::BadInput, sentence(got, expected, remedy)};
}

Error run_failed(const std::string& got, const std::string& expected, const std::string& remedy) {
  return {ErrorKind::RunFailed, sentence(got, expected, remedy)};
}

}  // namespace penstock
