/// \file
/// Plans for a network and its data on this machine: what the layers cost is measured, or found where it was measured
/// before. Free of libtorch.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "penstock/cost/layer_cost.h"
#include "penstock/plan/plan.h"
#include "penstock/report/plan_report.h"
#include "penstock/settings/settings.h"

namespace penstock {

/// Costs of layers and the file that holds them.
struct MeasuredCosts {
  LayerCosts costs;
  std::filesystem::path file;
  bool reused = false;       ///< nothing was measured: the file was of this model, machine and these sizes
  int threads_per_rank = 0;  ///< that it was measured with; 0 on devices
};

/// A standard error of the median, as a share of it, above which costs are measured again in place of being used again.
inline constexpr double noisy_spread = 0.05;

/// Takes one line for people.
using Note = std::function<void(const std::string&)>;

/// The costs of the network that `settings` describe, on `request.ranks` threads or devices at once, at the microbatch
/// sizes that the request may come to. They are kept in `settings.cost`, or where that is empty in a file of the user's
/// cache (`XDG_CACHE_HOME`, or `~/.cache`) whose name stands for model, machine and sizes; and taken from there when it
/// has them, unless `settings.remeasure` is set or their median was not known well (`noisy_spread`). `note` is told how
/// old they are and how well they are known.
/// \throws Error (BadInput) where model and data do not fit, as `make_plans` for ranks and batch, and where
/// `settings.cost` holds the costs of another model or machine, which the message names.
[[nodiscard]] MeasuredCosts measured_costs(const TrainSettings& settings, const PlanRequest& request, const Note& note);

/// The best plan on some number of ranks, and the costs that it was made from.
struct PlanOnRanks {
  Plan plan;
  MeasuredCosts measured;
};

/// The best plan of the request on each of several numbers of ranks, the fastest first. Ranks that are threads share
/// all cores of the machine: each has as many threads as there are cores for it. The costs of each number are kept as
/// `measured_costs` keeps them, of those that `settings.cost` names each in a file of its own beside it
/// ("cost-ranks-2.json"). \param ranks empty: the powers of two up to the number of devices, or of cores, and that
/// number; at most one for each layer. Numbers for which nothing fits are left out. \throws Error as `measured_costs`,
/// and the last one's error where nothing fits on any number.
[[nodiscard]] std::vector<PlanOnRanks> plans_by_ranks(const TrainSettings& settings, const PlanRequest& request,
                                                      const std::vector<int>& ranks, const Note& note);

/// The best plan on one rank, with all cores of the machine or one device: what a pipeline has to be faster than.
/// Nothing where the network does not fit on it. \param request for its batch and memory. \throws Error as
/// `measured_costs`.
[[nodiscard]] std::optional<PlanOnRanks> plan_on_one_rank(const TrainSettings& settings, const PlanRequest& request,
                                                          const Note& note);

/// Runs a plan of those settings for two steps to warm up and `steps` more. \throws Error as `train`.
[[nodiscard]] MeasuredPlan try_plan(const TrainSettings& settings, const Plan& plan, int steps);

/// What `settings` leave to a plan, chosen: costs are measured or found, the best plan is written to `plan.toml` in
/// `settings.out`, and the settings that are returned follow it. What is not automatic stays as it is.
/// \throws Error (BadInput) where nothing fits, or `settings.out` cannot take a run.
[[nodiscard]] TrainSettings choose_automatic(const TrainSettings& settings, const Note& note);

}  // namespace penstock
