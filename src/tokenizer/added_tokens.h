/// \file
/// Tokens that are found in a text before all others, whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "penstock/tokenizer/tokenizer.h"

namespace penstock {

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool single_word = false;  ///< only where no word goes on at either side
  bool strips_left = false;  ///< takes the white space before it too
  bool strips_right = false;
  bool normalized = false;  ///< is looked for in the normalised text
  bool special = false;
  std::string written = {};  ///< what its number stands for in a text: the content, normalised where the token is
};

/// A part of a text: an added token, or text between them.
struct Section {
  std::size_t begin = 0;
  std::size_t end = 0;
  const AddedToken* token = nullptr;  ///< nothing: text
};

/// Finds the longest token at the first place where there is one, and goes on behind it.
class TokenSearch {
 public:
  /// \param token has to outlive this. \param content what is looked for. An empty one is never found.
  void add(const AddedToken& token, std::string_view content);
  /// The parts of a text in order. \param with_special whether special tokens are found.
  void sections(std::string_view text, bool with_special, std::vector<Section>& into) const;

 private:
  struct Found {
    std::size_t begin = 0;
    std::size_t end = 0;
    const AddedToken* token = nullptr;
  };
  [[nodiscard]] std::optional<Found> find(std::string_view text, std::size_t from) const;

  // A tree of letters: the children of a node by (node, letter).
  std::unordered_map<std::uint64_t, std::uint32_t> children_;
  std::vector<const AddedToken*> token_of_node_ = {nullptr};
  std::vector<bool> begins_token_ = std::vector<bool>(256);
};

}  // namespace penstock
