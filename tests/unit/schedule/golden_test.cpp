// The verifier's and the reader's diagnostics, held word for word. Each file in tests/golden/schedule has, above a line
// of three dashes, a schedule, and below it exactly what is diagnostic of it. Lines with # before the schedule set
// options:
// `# cap 2`,
// `# blocking`, `# any order`, `# lower`. PENSTOCK_UPDATE_GOLDEN=1 writes the files anew, to be looked at before a
// commit.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

constexpr std::string_view separator = "---\n";

struct Golden {
  std::string head;  // options and schedule, up to the separator
  std::string input;
  std::string expected;
  VerifyOptions options;
  bool lowers = false;
};

void set_option(Golden& golden, const std::string& option) {
  if (option == "blocking")
    golden.options.sends = SendMode::Blocking;
  else if (option == "any order")
    golden.options.accumulation = Accumulation::AnyOrder;
  else if (option == "lower")
    golden.lowers = true;
  else if (option.starts_with("cap "))
    golden.options.memory_cap = std::stoi(option.substr(4));
}

Golden read_golden(const std::filesystem::path& path) {
  Golden golden;
  const std::string content = read_file(path);
  const std::size_t split = content.find(separator);
  EXPECT_NE(split, std::string::npos) << path;
  golden.head = content.substr(0, split);
  golden.expected = content.substr(split + separator.size());
  golden.input = golden.head;
  while (golden.input.starts_with("# ")) {
    const std::size_t end = golden.input.find('\n');
    set_option(golden, golden.input.substr(2, end - 2));
    golden.input.erase(0, end + 1);
  }
  return golden;
}

std::string diagnostic_of(const Golden& golden) {
  try {
    Schedule schedule = parse_schedule(golden.input);
    if (golden.lowers) schedule = lower(verify(schedule)).get();
    static_cast<void>(verify(schedule, golden.options));
    return "accepted\n";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return std::string(error.what()) + '\n';
  }
}

TEST(Golden, EveryDiagnosticIsExactlyWhatItsFileSays) {
  const std::filesystem::path folder = std::filesystem::path(PENSTOCK_GOLDEN) / "schedule";
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  EXPECT_GE(paths.size(), 40U);
  for (const auto& path : paths) {
    SCOPED_TRACE(path.filename().string());
    const Golden golden = read_golden(path);
    const std::string diagnostic = diagnostic_of(golden);
    if (std::getenv("PENSTOCK_UPDATE_GOLDEN") != nullptr)  // NOLINT(concurrency-mt-unsafe)
      write_file_atomically(path, golden.head + std::string(separator) + diagnostic);
    else
      EXPECT_EQ(diagnostic, golden.expected);
  }
}

}  // namespace
}  // namespace penstock
