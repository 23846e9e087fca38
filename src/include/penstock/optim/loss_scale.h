/// \file
/// The factor that keeps float16 gradients from vanishing.
#pragma once

namespace penstock {

/// A power of two that the loss is multiplied with before the backward pass, and the gradients divided by after it.
/// When a gradient was not finite, its update is skipped and the factor is halved; when all have been finite for long
/// enough, it is doubled (arXiv 1710.03740, section 3.2). All ranks see the same outcomes and so keep equal scales.
struct LossScale {
  /// Gradients are those of a sum, not of a mean: far from vanishing, they would be too large with the usual 65536.
  double scale = 256;
  int clean_steps = 0;         ///< in a row, since the scale last changed
  int growth_interval = 2000;  ///< clean steps before the scale is doubled

  /// After a step whose gradient was finite on all ranks, or not.
  void saw(bool finite);

  friend bool operator==(const LossScale&, const LossScale&) = default;
};

}  // namespace penstock
