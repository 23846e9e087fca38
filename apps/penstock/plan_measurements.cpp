#include "plan_measurements.h"

#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <set>

#include "penstock/base/error.h"
#include "penstock/run/planning.h"

#include "setting_options.h"

namespace penstock::app {
namespace {

constexpr int steps_of_a_try = 5;

// Those that say what the network is and where it lives, but none that the plan decides or has under its own name.
bool is_asked(SettingGroup group, const std::string& name) {
  static const std::set<std::string> others{"devices", "threads-per-rank", "optimizer", "momentum", "precision",
                                            "seed",    "remeasure"};
  if (name == "model") return false;
  return group == SettingGroup::Data || group == SettingGroup::Network || others.contains(name);
}

// What the whole run would be told, as far as a plan asks for it.
TrainSettings settings_of(TrainSettings settings, const std::string& model, std::int64_t batch) {
  if (!model.empty()) settings.model = model;
  settings.batch = batch;
  settings.microbatches = 1;
  check_measured_settings(settings);
  return settings;
}

// The answer goes to the standard output, perhaps to a program.
void tell(const std::string& line) { fmt::print(stderr, "{}\n", line); }

}  // namespace

PlanMeasurements plan_measurements() {
  const auto settings = std::make_shared<TrainSettings>();
  PlanMeasurements measurements;
  measurements.add_options = [settings](CLI::App& command) { add_setting_options(command, *settings, is_asked); };
  measurements.asked_for = [settings] { return !settings->data.empty(); };
  measurements.costs = [settings](const std::string& model, const PlanRequest& request, const std::string& cost_file) {
    TrainSettings asked = settings_of(*settings, model, request.batch);
    asked.cost = cost_file;
    if (request.ranks == automatic_ranks) {
      std::vector<PlanOnRanks> planned = plans_by_ranks(asked, request, {}, tell);
      PlanMeasurements::Costs costs{std::move(planned.front().measured.costs), planned.front().measured.file.string(),
                                    planned.front().plan.ranks, planned.front().plan.threads_per_rank};
      for (std::size_t other = 1; other < planned.size(); ++other)
        costs.on_other_ranks.push_back(std::move(planned[other].plan));
      return costs;
    }
    MeasuredCosts measured = measured_costs(asked, request, tell);
    return PlanMeasurements::Costs{std::move(measured.costs), measured.file.string(), request.ranks,
                                   measured.threads_per_rank};
  };
  measurements.one_rank = [settings](const std::string& model, const PlanRequest& request,
                                     const std::string& cost_file) -> std::optional<Plan> {
    TrainSettings asked = settings_of(*settings, model, request.batch);
    asked.cost = cost_file;
    auto planned = plan_on_one_rank(asked, request, tell);
    if (!planned) return std::nullopt;
    return std::move(planned->plan);
  };
  measurements.try_plan = [settings](const std::string& model, const Plan& plan) {
    return try_plan(settings_of(*settings, model, plan.batch), plan, steps_of_a_try);
  };
  return measurements;
}

}  // namespace penstock::app
