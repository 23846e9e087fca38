/// \file
/// Watches a run that follows a plan: is every stage as fast as planned?
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/plan/plan.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// Sees every step, and says at most one sentence. Belongs to one thread.
class DriftWatch {
 public:
  /// \param share by which the time of a stage may differ from the plan's, above 0. Nothing is said of a plan that does
  /// not say how long its stages take.
  DriftWatch(Plan plan, double share) : plan_(std::move(plan)), share_(share) {}

  /// Call it after each step. Returns a sentence the first time that, on some stage, the median of the last steps is
  /// further from the plan than the share. If all stages are slower or faster alike, it says that the machine has
  /// changed; otherwise which stages differ, and what a plan for the times as they are would gain, if the plan's costs
  /// can still be read.
  [[nodiscard]] std::optional<std::string> observe(const Timeline& step);

 private:
  [[nodiscard]] std::string gain(const std::vector<double>& measured) const;

  Plan plan_;
  double share_;
  bool reported_ = false;
  int seen_ = 0;
  std::vector<std::vector<double>> last_;  // by stage: ms a microbatch, of the last steps
};

}  // namespace penstock
