/// \file
/// What is planned for, checked and laid out, and the configurations that are looked at.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/cost/layers_at_size.h"
#include "penstock/cost/ledger.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/generators.h"

#include "plan/ties.h"

namespace penstock {

[[nodiscard]] bool has_split_backward(const Schedule& schedule);

/// A schedule family with a number of stages a rank, as far as it matters to cuts.
struct FamilyShape {
  const ScheduleFamily* family = nullptr;
  int stages_per_rank = 1;
  bool split_backward = false;                       ///< has `I` and `W`
  Placement placement;                               ///< on the ranks of one replica
  std::shared_ptr<const TiedLayers> ties = nullptr;  ///< that every cut has to keep on one rank each; null: none
};

/// All that is decided before the cut.
struct Configuration {
  int replicas = 1;
  int ranks = 1;  ///< of one replica
  int microbatches = 1;
  std::shared_ptr<const FamilyShape> shape;
  double bound = 0;  ///< no step of this configuration is shorter, with the unconstrained cut

  [[nodiscard]] int stages() const { return ranks * shape->stages_per_rank; }
};

/// The request against the costs. Refuses what cannot be planned for.
class PlanningProblem {
 public:
  PlanningProblem(const LayerCosts& costs, const PlanRequest& request);
  PlanningProblem(const PlanningProblem&) = delete;
  PlanningProblem& operator=(const PlanningProblem&) = delete;
  PlanningProblem(PlanningProblem&&) = delete;
  PlanningProblem& operator=(PlanningProblem&&) = delete;
  ~PlanningProblem() = default;

  /// What is played: where ties are shared, without what their layers have in common.
  [[nodiscard]] const LayerCosts& costs() const { return *costs_; }
  /// As they were given.
  [[nodiscard]] const LayerCosts& given_costs() const { return *given_costs_; }
  [[nodiscard]] const PlanRequest& request() const { return *request_; }
  [[nodiscard]] double speed(std::size_t rank) const { return speeds_[rank]; }
  [[nodiscard]] double cap(std::size_t rank) const { return caps_[rank]; }
  [[nodiscard]] bool capped() const { return capped_; }
  [[nodiscard]] double samples(int replicas, int microbatches) const;
  /// Remembered from call to call.
  const LayersAtSize& at(int replicas, int microbatches);
  /// All configurations within the request and the measured sizes, without bounds. Notes say what was left out.
  [[nodiscard]] std::vector<Configuration> configurations(std::vector<std::string>& notes) const;

 private:
  void check() const;
  void check_range() const;
  [[nodiscard]] bool ranks_alike() const;
  [[nodiscard]] bool is_wanted(const ScheduleFamily& family) const;
  [[nodiscard]] std::vector<int> microbatch_counts(int replicas, int ranks) const;
  [[nodiscard]] bool shares_ties() const { return request_->share_ties && !given_costs_->ties.empty(); }
  /// \param parting counts the shapes that are left out because each of their cuts parts tied layers.
  [[nodiscard]] std::vector<std::shared_ptr<const FamilyShape>> shapes(int ranks, std::int64_t& parting) const;
  [[nodiscard]] Error no_shared_ties() const;

  const LayerCosts* given_costs_;
  std::optional<LayerCosts> shared_;
  const LayerCosts* costs_;
  const PlanRequest* request_;
  std::vector<double> speeds_;
  std::vector<double> caps_;
  bool capped_ = false;
  std::map<std::int64_t, std::unique_ptr<LayersAtSize>> at_size_;
};

/// Numbers of microbatches of `batch` samples that are worth a look on so many ranks: the divisors, and others between
/// them. Ascending. For small batches all.
[[nodiscard]] std::vector<int> sensible_microbatches(std::int64_t batch, int ranks);

}  // namespace penstock
