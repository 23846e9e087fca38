#include "data/token_index.h"

#include <array>
#include <fmt/format.h>
#include <fstream>
#include <string_view>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

namespace penstock {
namespace {

// How such an index begins.
bool looks_like_index(const std::filesystem::path& file) {
  std::array<char, 256> first{};
  std::ifstream opened(file, std::ios::binary);
  opened.read(first.data(), std::ssize(first));
  const std::string_view text(first.data(), static_cast<std::size_t>(opened.gcount()));
  return text.find("\"penstock corpus") != std::string_view::npos;
}

}  // namespace

std::optional<Corpus> index_of_tokens(const std::filesystem::path& tokens) {
  const std::filesystem::path index = std::filesystem::path(tokens).replace_extension(".json");
  if (!is_there(index) || !looks_like_index(index)) return std::nullopt;
  return read_corpus_index(index);
}

std::optional<DataKind> indexed_kind(const std::vector<std::filesystem::path>& files, std::optional<DataKind> given) {
  std::optional<DataKind> kind;
  for (const std::filesystem::path& file : files) {
    const auto index = index_of_tokens(file);
    if (!index) continue;
    const DataKind own = index->bytes_per_token == 2 ? DataKind::Tokens16 : DataKind::Tokens32;
    if (given && *given != own)
      throw bad_input(fmt::format("`data_kind` = {} for {}", word_of(*given), file.string()),
                      fmt::format("{}, as its index says", word_of(own)), "drop `data_kind`");
    if (kind && *kind != own)
      throw bad_input(fmt::format("{} holds {}, and files before it {}", file.string(), word_of(own), word_of(*kind)),
                      "files of one kind", "name them apart, each with a weight");
    kind = own;
  }
  return kind;
}

}  // namespace penstock
