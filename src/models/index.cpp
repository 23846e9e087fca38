#include "models/index.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/text_limits.h"

namespace penstock {
namespace {

constexpr std::int64_t longest_index = 64 << 20;

}  // namespace

std::map<std::string, std::string> parse_weight_index(const std::string& text, const std::string& source) {
  const auto refuse = [&](const std::string& what) {
    return bad_input(fmt::format("{} {}", source, what), "an index of weights: {\"weight_map\": {tensor: file}}",
                     "download the folder again");
  };
  check_json_limits(text, source, {});
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw refuse("is no JSON object");
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) throw refuse("has no weight_map");
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string()) throw refuse("places a tensor in no file");
    const auto& plain = file.get_ref<const std::string&>();
    // A name from the network must not read other files of this machine.
    if (plain.empty() || plain.starts_with('.') || plain.find('/') != std::string::npos ||
        !plain.ends_with(".safetensors"))
      throw refuse("names a file that is no .safetensors of its folder");
    files.emplace(name, plain);
  }
  return files;
}

std::map<std::string, std::string> read_weight_index(const std::filesystem::path& file) {
  return parse_weight_index(read_file(file, longest_index), file.string());
}

}  // namespace penstock
