// Several documents in one sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include "penstock/models/decoder_settings.h"

namespace penstock {

// Whether layers are given the documents of their tokens here: a sequence that goes on from a cache is one document.
[[nodiscard]] bool are_apart(const DecoderSettings& settings);

// For each of the tokens [microbatch, length] the number of its document, from 0 in each sequence.
[[nodiscard]] at::Tensor documents_of(const at::Tensor& tokens, const DocumentSettings& settings);

// The positions of the tokens within their documents, from such numbers.
[[nodiscard]] at::Tensor positions_within(const at::Tensor& documents);

}  // namespace penstock
