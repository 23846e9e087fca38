/// \file
/// The tokens that a tokenizer puts around a text.
#pragma once

#include <vector>

#include "penstock/tokenizer/tokenizer.h"

#include "tokenizer/json_value.h"

namespace penstock {

struct PostProcessor {
  std::vector<TokenId> before;
  std::vector<TokenId> behind;
};

/// \throws Error (BadInput) that names the kind of a post-processor that is not supported.
[[nodiscard]] PostProcessor read_post_processor(const JsonValue& json);

}  // namespace penstock
