/// \file
/// Training and evaluation, for modules of which some may be frozen.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "penstock/nn/layer.h"

namespace penstock {

/// While it lives, all modules of some layers are in evaluation mode. Then each has again the mode that it had before,
/// so that what was frozen by `eval()`, in a constructor or between two steps, is frozen still. `Module::train` is
/// called where a mode changes, so that a module which overrides it is asked. Not thread-safe.
class EvaluationScope {
 public:
  explicit EvaluationScope(const std::vector<Layer>& layers);
  EvaluationScope(const EvaluationScope&) = delete;
  EvaluationScope& operator=(const EvaluationScope&) = delete;
  EvaluationScope(EvaluationScope&&) = delete;
  EvaluationScope& operator=(EvaluationScope&&) = delete;
  ~EvaluationScope();

 private:
  // From each module to those within it, since a mode is set with those within.
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> modes_;
};

}  // namespace penstock
