// What JavaScript calls: a text in, a text out, both UTF-8 that ends with a zero.
#include <cstdlib>
#include <cstring>
#include <string>

#include "explore.h"

extern "C" {

/// The answer is the caller's to `free`. Nothing where there is no memory for it.
char* penstock_explore(const char* request) {
  const std::string answer = penstock::explorer::explore(request);
  auto* const copy = static_cast<char*>(std::malloc(answer.size() + 1));  // NOLINT(cppcoreguidelines-no-malloc)
  if (copy != nullptr) std::memcpy(copy, answer.c_str(), answer.size() + 1);
  return copy;
}
}
