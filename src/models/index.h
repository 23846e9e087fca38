// The index of weights that lie in several files. Free of libtorch.
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace penstock {

// The weights of a model in one file, and the index if there are several.
inline constexpr const char* single_file = "model.safetensors";
inline constexpr const char* index_file = "model.safetensors.index.json";

// The file of each tensor, by the tensor's name. Throws Error (BadInput) for what is no index, and for a file's name
// that leads out of the folder.
[[nodiscard]] std::map<std::string, std::string> read_weight_index(const std::filesystem::path& file);
// The same from its text.
[[nodiscard]] std::map<std::string, std::string> parse_weight_index(const std::string& text, const std::string& source);

}  // namespace penstock
