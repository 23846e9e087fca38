#include "plan_measurements.h"

#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <set>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/run/train.h"
#include "penstock/settings/checks.h"

#include "setting_options.h"

namespace penstock::app {
namespace {

constexpr int steps_of_a_try = 5;

// Those that say what the network is and where it lives, but none that the plan decides or has under its own name.
bool is_asked(SettingGroup group, const std::string& name) {
  static const std::set<std::string> others{"devices",   "threads-per-rank", "optimizer", "momentum",
                                            "precision", "weights",          "seed",      "remeasure"};
  if (name == "model") return false;
  return group == SettingGroup::Data || group == SettingGroup::Model || others.contains(name);
}

// What the whole run would be told, as far as a plan asks for it.
TrainSettings settings_of(TrainSettings settings, const std::string& model, std::int64_t batch) {
  if (!model.empty()) read_setting("model", model, settings.model.kind);
  settings.training.batch = batch;
  settings.layout.microbatches = 1;
  settings = with_published_shape(std::move(settings));
  check_measured_settings(settings);
  return settings;
}

PlanElsewhere elsewhere(PlanOnRanks planned) {
  const auto& how = planned.measured.costs.measured;
  return {std::move(planned.plan), how ? how->spread : 0};
}

// What else `--model` names, with costs of a file, is no folder.
bool names_published_model(const std::string& model) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(std::filesystem::path(model) / "config.json", ignored);
}

// The answer goes to the standard output, perhaps to a program.
void print_note(const std::string& line) { fmt::print(stderr, "{}\n", line); }

}  // namespace

PlanMeasurements plan_measurements() {
  const auto settings = std::make_shared<TrainSettings>();
  PlanMeasurements measurements;
  measurements.add_options = [settings](CLI::App& command) { add_setting_options(command, *settings, is_asked); };
  measurements.asked_for = [settings](const std::string& model) {
    return !settings->data.paths.empty() || names_published_model(model);
  };
  measurements.costs = [settings](const std::string& model, PlanRequest request, const Ranks& ranks,
                                  const std::string& cost_file) {
    TrainSettings asked = settings_of(*settings, model, request.batch);
    asked.planning.cost = cost_file;
    if (ranks.is_automatic()) {
      std::vector<PlanOnRanks> planned = plans_by_ranks(asked, request, {}, print_note);
      PlanMeasurements::Costs costs{std::move(planned.front().measured.costs), planned.front().measured.file.string(),
                                    planned.front().plan.ranks, planned.front().plan.threads_per_rank};
      for (std::size_t other = 1; other < planned.size(); ++other)
        costs.on_other_ranks.push_back(elsewhere(std::move(planned[other])));
      return costs;
    }
    request.ranks = ranks.count();
    MeasuredCosts measured = measured_costs(asked, request, print_note);
    return PlanMeasurements::Costs{std::move(measured.costs), measured.file.string(), request.ranks,
                                   measured.threads_per_rank};
  };
  measurements.one_rank = [settings](const std::string& model, const PlanRequest& request,
                                     const std::string& cost_file) -> std::optional<PlanElsewhere> {
    TrainSettings asked = settings_of(*settings, model, request.batch);
    asked.planning.cost = cost_file;
    auto planned = plan_on_one_rank(asked, request, print_note);
    if (!planned) return std::nullopt;
    return elsewhere(std::move(*planned));
  };
  measurements.try_plan = [settings](const std::string& model, const Plan& plan) {
    return try_plan(settings_of(*settings, model, plan.batch), plan, steps_of_a_try);
  };
  return measurements;
}

}  // namespace penstock::app
