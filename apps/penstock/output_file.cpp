#include "output_file.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <string_view>
#include <system_error>

#include "penstock/base/error.h"

namespace penstock::app {
namespace {

std::string suffix_of(const std::string& file) {
  std::string suffix = std::filesystem::path(file).extension().string();
  for (char& letter : suffix)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  return suffix == ".htm" ? ".html" : suffix;
}

// Whoever writes one of these at the end of a name expects that format in it.
bool promises_a_format(const std::string& suffix) {
  constexpr std::array<std::string_view, 11> promises{".csv", ".gif", ".html", ".jpg",  ".json", ".md",
                                                      ".pdf", ".png", ".svg",  ".toml", ".txt"};
  return std::find(promises.begin(), promises.end(), suffix) != promises.end();
}

std::string suffixes_of(const std::vector<OutputFormat>& formats) {
  std::vector<std::string> suffixes;
  suffixes.reserve(formats.size());
  for (const OutputFormat& format : formats) suffixes.push_back(format.suffix);
  return fmt::format("{}", fmt::join(suffixes, ", "));
}

}  // namespace

void check_output(const std::string& file, const std::string& option) {
  if (file.empty()) return;
  std::error_code problem;
  const auto status = std::filesystem::status(file, problem);
  if (problem == std::errc::filename_too_long)
    throw bad_input(fmt::format("{} {}: {}", option, shortened(file), problem.message()), "a file to write",
                    "shorten the name");
  if (std::filesystem::is_directory(status))
    throw bad_input(fmt::format("{} {} is a folder", option, file), "a file to write", "name a file in it");
  const auto folder = std::filesystem::path(file).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder, problem))
    throw bad_input(fmt::format("{} {}, but there is no folder {}", option, file, folder.string()),
                    "a file in a folder that exists", "make the folder or correct the path");
}

std::string format_of_output(const std::string& file, const std::string& asked,
                             const std::vector<OutputFormat>& formats, const std::string& option) {
  check_output(file, option);
  const std::string suffix = suffix_of(file);
  const auto suffix_format =
      std::find_if(formats.begin(), formats.end(), [&](const OutputFormat& format) { return format.suffix == suffix; });
  if (asked.empty()) {
    if (suffix.empty()) return formats.front().name;
    if (suffix_format != formats.end()) return suffix_format->name;
    throw bad_input(fmt::format("{} {}", option, shortened(file)),
                    fmt::format("a name that ends in {}", suffixes_of(formats)),
                    "change the name, or say the format with --format");
  }
  const auto wanted =
      std::find_if(formats.begin(), formats.end(), [&](const OutputFormat& format) { return format.name == asked; });
  if (suffix_format != formats.end() ? suffix_format->name != asked : promises_a_format(suffix))
    throw bad_input(
        fmt::format("--format {} into {}", asked, shortened(file)),
        wanted == formats.end() ? "a name of that format" : fmt::format("a name that ends in {}", wanted->suffix),
        "change the name, or leave --format out");
  return asked;
}

void check_output_is(const OutputFormat& format, const std::string& file, const std::string& option) {
  check_output(file, option);
  const std::string suffix = suffix_of(file);
  if (suffix != format.suffix && promises_a_format(suffix))
    throw bad_input(fmt::format("{} {}, but what is written is {}", option, shortened(file), format.name),
                    fmt::format("a name that ends in {}", format.suffix), "change the name");
}

}  // namespace penstock::app
