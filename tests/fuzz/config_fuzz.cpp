// Any file to the reader of settings, as of --config and --plan; what it accepts must be written so that it is read the
// same, and either be refused by the checks that follow or hold what they promise.
#include <cmath>
#include <cstdlib>
#include <string>

#include "penstock/settings/settings.h"
#include "penstock/settings/visit_settings.h"

#include "memory_bound.h"
#include "read_input.h"

namespace {

using namespace penstock;

bool is_finite(const TrainSettings& settings) {
  bool finite = true;
  visit_settings(settings, [&](SettingGroup, const char*, const auto& value, const char*) {
    if constexpr (std::is_floating_point_v<std::remove_cvref_t<decltype(value)>>)
      finite = finite && std::isfinite(value);
  });
  return finite;
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string text = text_of_input(data, size);
  const UnnamedFile file(text);
  TrainSettings settings;
  bool accepted = false;
  {
    const MemoryBound bound(text.size());
    refuse_in_one_line([&] {
      apply_toml(settings, file.path());
      accepted = true;
    });
  }
  if (!accepted) return 0;
  const std::string written = to_toml(settings);
  TrainSettings again;
  apply_toml(again, UnnamedFile(written).path());
  if (to_toml(again) != written) std::abort();
  settings.output.folder = "out";
  refuse_in_one_line([&] {
    check_settings(settings);
    if (!is_finite(settings)) std::abort();
  });
  return 0;
}
