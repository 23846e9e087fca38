/// \file
/// The yardstick of a language model: how well the byte before predicts the next one.
#pragma once

#include "penstock/data/dataset.h"

namespace penstock {

/// Fits a bigram model of bytes to the training split and returns its loss on the held-out split in nats per byte: the
/// mean of −ln p(byte | byte before it) over every held-out byte that has a byte before it in its block. The
/// probabilities are counts with additive smoothing, (count(a, b) + α) / (count(a) + 256 α); α is the one that suits
/// the held-out split best, so the model that is compared meets the strongest bigram of this kind. Of very large splits
/// an evenly spaced part is read (256 MiB for training, 64 MiB held out), always the same.
/// \throws Error (BadInput) for data that is not text or has no held-out split.
[[nodiscard]] double bigram_loss(const Data& data);

}  // namespace penstock
