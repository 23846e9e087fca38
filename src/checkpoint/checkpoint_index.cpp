#include "checkpoint/checkpoint_index.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/read_only_file.h"

#include "checkpoint/checksum.h"
#include "checkpoint/json_events.h"

namespace penstock {
namespace {

constexpr std::string_view format_name = "penstock checkpoint";
constexpr std::uint64_t format_version = 1;
constexpr std::uint64_t largest_step = 1'000'000'000'000'000;

/// The last line, `"xxh64": "0123456789abcdef"}` with a line feed: always as long as this.
constexpr std::string_view last_line_begin = R"("xxh64": ")";
constexpr std::string_view last_line_end = "\"}\n";
constexpr std::size_t checksum_digits = 16;
constexpr std::size_t last_line_bytes = last_line_begin.size() + checksum_digits + last_line_end.size();

Error damaged_index(const std::string& file, const std::string& got, const std::string& expected) {
  return bad_input(fmt::format("{}: {}", file, got), expected,
                   "the checkpoint is damaged or not penstock's: use an earlier one");
}

std::string checksum_of_text(std::string_view text) {
  Checksum checksum;
  checksum.add(text.data(), text.size());
  return checksum.text();
}

/// Whether a file in the checkpoint's folder may have this name. No system call would see what stands behind a NUL.
bool is_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

/// Puts the index together out of the events of its JSON. Its checksum has been verified before, so what is refused
/// here was written so: by another program or another version.
class IndexBuilder {
 public:
  explicit IndexBuilder(const std::string& file) : file_(file) {}

  void take(std::span<const std::string> keys, JsonEvent&& event) {
    if (keys.empty()) return;  // the outermost object itself
    const bool object = std::holds_alternative<ObjectStart>(event);
    if (std::holds_alternative<ObjectEnd>(event)) return;
    const std::string& first = keys[0];
    // There may be many tensors: their own map knows them.
    const bool tensor = first == "tensors" && keys.size() == 2;
    if (!tensor && !seen_.emplace(keys.begin(), keys.end()).second) throw unusable(keys);
    if (first == "files" && keys.size() <= 3) {
      if (keys.size() == 3) return take_sum(keys, std::move(event));
      if (!object) throw unusable(keys);
      if (keys.size() == 2) index_.files.try_emplace(keys[1]);
    } else if (first == "tensors" && keys.size() <= 2) {
      if (keys.size() == 1 ? !object : !std::holds_alternative<std::string>(event)) throw unusable(keys);
      if (tensor && !index_.tensors.emplace(keys[1], std::get<std::string>(std::move(event))).second)
        throw unusable(keys);
    } else if (keys.size() == 1) {
      take_setting(keys, std::move(event));
    } else {
      throw unusable(keys);
    }
  }

  [[nodiscard]] CheckpointIndex finish() {
    for (const char* key : {"format", "version", "step", "metadata", "files", "tensors"})
      if (!seen_.contains({key})) throw damaged_index(file_, "an index without " + std::string(key), "the whole index");
    for (const auto& [name, sum] : index_.files)
      if (sum.checksum.size() != checksum_digits || !is_file_name(name))
        throw damaged_index(file_, "an unusable entry for the file " + in_quotes(name), "its name, bytes and xxh64");
    for (const auto& [name, file] : index_.tensors)
      if (!index_.files.contains(file))
        throw damaged_index(file_, fmt::format("{} in the file {}", in_quotes(name), in_quotes(file)),
                            "one of its files");
    return std::move(index_);
  }

 private:
  void take_setting(std::span<const std::string> keys, JsonEvent&& event) {
    const std::string& key = keys[0];
    const auto* number = std::get_if<std::uint64_t>(&event);
    auto* text = std::get_if<std::string>(&event);
    if (key == "version" && number != nullptr) {
      if (*number != format_version)
        throw bad_input(fmt::format("{}: version {} of the format", file_, *number),
                        fmt::format("version {}", format_version), "use the release of penstock that wrote it");
    } else if (key == "format" && text != nullptr) {
      if (*text != format_name) throw damaged_index(file_, "the format " + in_quotes(*text), std::string(format_name));
    } else if (key == "step" && number != nullptr && *number <= largest_step) {
      index_.step = static_cast<std::int64_t>(*number);
    } else if (key == "metadata" && text != nullptr) {
      index_.metadata = std::move(*text);
    } else if (key != "xxh64" || text == nullptr) {
      throw unusable(keys);
    }
  }

  void take_sum(std::span<const std::string> keys, JsonEvent&& event) {
    FileSum& sum = index_.files[keys[1]];
    if (const auto* number = std::get_if<std::uint64_t>(&event); number != nullptr && keys[2] == "bytes") {
      sum.bytes = *number;
    } else if (auto* text = std::get_if<std::string>(&event); text != nullptr && keys[2] == "xxh64") {
      sum.checksum = std::move(*text);
    } else {
      throw unusable(keys);
    }
  }

  [[nodiscard]] Error unusable(std::span<const std::string> keys) const {
    return damaged_index(file_, "an unusable " + in_quotes(keys.back()), "the keys of this format, each once");
  }

  const std::string& file_;
  CheckpointIndex index_;
  std::set<std::vector<std::string>> seen_;
};

}  // namespace

std::string format_index(const CheckpointIndex& index) {
  std::string text =
      fmt::format("{{\"format\": \"{}\",\n\"version\": {},\n\"step\": {},\n\"metadata\": {},\n\"files\": {{",
                  format_name, format_version, index.step, json_string(index.metadata));
  const char* separator = "\n";
  for (const auto& [name, sum] : index.files) {
    text +=
        fmt::format(R"({}  {}: {{"bytes": {}, "xxh64": "{}"}})", separator, json_string(name), sum.bytes, sum.checksum);
    separator = ",\n";
  }
  text += "},\n\"tensors\": {";
  separator = "\n";
  for (const auto& [name, file] : index.tensors) {
    text += fmt::format("{}  {}: {}", separator, json_string(name), json_string(file));
    separator = ",\n";
  }
  text += "},\n";
  return text + fmt::format("{}{}{}", last_line_begin, checksum_of_text(text), last_line_end);
}

CheckpointIndex parse_index(std::string_view text, const std::string& file) {
  if (text.size() < last_line_bytes) throw damaged_index(file, fmt::format("{} bytes", text.size()), "a whole index");
  const std::string_view body = text.substr(0, text.size() - last_line_bytes);
  const std::string_view last_line = text.substr(body.size());
  const std::string expected = fmt::format("{}{}{}", last_line_begin, checksum_of_text(body), last_line_end);
  if (last_line != expected) throw damaged_index(file, "content that its last line does not fit", in_quotes(expected));
  IndexBuilder builder(file);
  const std::string problem = read_json(
      text, 3, [&](std::span<const std::string> keys, JsonEvent&& event) { builder.take(keys, std::move(event)); });
  if (!problem.empty()) throw damaged_index(file, problem, "the JSON of an index");
  return builder.finish();
}

namespace {

// A link may lead out of the folder, to what is another's.
void require_own_file(const std::filesystem::path& path) {
  std::error_code problem;
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(path, problem)))
    throw damaged_index(path.string(), "a symbolic link", "a file of the checkpoint's own");
}

}  // namespace

CheckpointIndex read_index(const std::filesystem::path& folder) {
  constexpr std::uint64_t longest = std::uint64_t{64} << 20;
  require_own_file(folder / checkpoint_index_name);
  const ReadOnlyFile file(folder / checkpoint_index_name);
  if (file.size() > longest)
    throw damaged_index(file.name(), fmt::format("{} bytes", file.size()), fmt::format("at most {}", longest));
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  CheckpointIndex index = parse_index(text, file.name());
  for (const auto& [name, sum] : index.files) {
    std::error_code problem;
    const auto path = folder / name;
    require_own_file(path);
    const std::uintmax_t bytes = std::filesystem::file_size(path, problem);
    if (problem) throw damaged_index(path.string(), problem.message(), fmt::format("a file of {} bytes", sum.bytes));
    if (bytes != sum.bytes)
      throw damaged_index(path.string(), fmt::format("{} bytes", bytes), fmt::format("{} bytes", sum.bytes));
  }
  return index;
}

}  // namespace penstock
