/// \file
/// Plans for a network and its data on this machine: what the layers cost is measured, or found where it was measured
/// before. Free of libtorch.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "penstock/cost/layer_cost.h"
#include "penstock/plan/plan.h"
#include "penstock/report/plan_report.h"
#include "penstock/train/settings.h"

namespace penstock {

/// Costs of layers and the file that holds them.
struct MeasuredCosts {
  LayerCosts costs;
  std::filesystem::path file;
  bool reused = false;  ///< nothing was measured: the file was of this model, machine and these sizes
};

/// Takes one line for people.
using Note = std::function<void(const std::string&)>;

/// The costs of the network that `settings` describe, on `request.ranks` threads or devices at once, at the microbatch
/// sizes that the request may come to. They are kept in `settings.cost`, or where that is empty in a file of the user's
/// cache (`XDG_CACHE_HOME`, or `~/.cache`) whose name stands for model, machine and sizes; and taken from there when it
/// has them.
/// \throws Error (BadInput) where model and data do not fit, as `make_plans` for ranks and batch, and where
/// `settings.cost` holds the costs of another model or machine, which the message names.
[[nodiscard]] MeasuredCosts measured_costs(const TrainSettings& settings, const PlanRequest& request, const Note& note);

/// Runs a plan of those settings for two steps to warm up and `steps` more. \throws Error as `train`.
[[nodiscard]] MeasuredPlan try_plan(const TrainSettings& settings, const Plan& plan, int steps);

/// What `settings` leave to a plan, chosen: costs are measured or found, the best plan is written to `plan.toml` in
/// `settings.out`, and the settings that are returned follow it. What is not automatic stays as it is.
/// \throws Error (BadInput) where nothing fits, or `settings.out` cannot take a run.
[[nodiscard]] TrainSettings choose_automatic(const TrainSettings& settings, const Note& note);

}  // namespace penstock
