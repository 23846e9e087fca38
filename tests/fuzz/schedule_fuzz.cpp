// Any text to the reader of schedules; what it accepts to the verifier, with and without blocking sends and a cap; and
// what that accepts on to lowering, with receives posted late and early, and back to text. Nothing may crash, hang or
// contradict itself.
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "penstock/base/error.h"
#include "penstock/schedule/verify.h"

namespace {

using namespace penstock;

std::optional<VerifiedSchedule> proved(const Schedule& schedule, const VerifyOptions& options) {
  try {
    return verify(schedule, options);
  } catch (const Error& error) {
    if (std::string_view(error.what()).empty()) std::abort();
    return std::nullopt;
  }
}

// What was proved once stays proved with its sends and receives, and an error here ends the program; blocking sends are
// another matter.
void prove(const Schedule& schedule, const VerifyOptions& options) {
  const std::optional<VerifiedSchedule> verified = proved(schedule, options);
  if (!verified) return;
  for (const int posted : {0, 1, 2, std::numeric_limits<int>::max()})
    static_cast<void>(
        verify(lower(*verified, {.posted_receives = posted}).get(), {.accumulation = options.accumulation}));
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Schedule schedule;
  try {
    schedule = parse_schedule(text);
  } catch (const Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  // What was read is written so that it is read the same.
  if (parse_schedule(to_csv(schedule)) != schedule) std::abort();
  prove(schedule, {});
  prove(schedule, {.accumulation = Accumulation::AnyOrder});
  prove(schedule, {.sends = SendMode::Blocking, .memory_cap = 4});
  return 0;
}
