#include "plan/shortfall.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <vector>

namespace penstock {
namespace {

/// A part of the request that stands in the way, and the request without it.
struct Knob {
  std::string remedy;        // "raise `ranks` to 6"
  std::string circumstance;  // "with `ranks` 6"
  PlanRequest request;
};

std::vector<Knob> knobs_of(const PlanRequest& request, std::int64_t layers, bool ranks_are_listed) {
  std::vector<Knob> knobs;
  const auto add = [&](const std::string& remedy, const std::string& circumstance, auto change) {
    knobs.push_back({remedy, circumstance, request});
    change(knobs.back().request);
  };
  if (request.cut) add("leave `cut` out", "without `cut`", [](PlanRequest& changed) { changed.cut.reset(); });
  if (request.recomputation == Recomputation::None)
    add("allow `recompute`", "with `recompute` auto",
        [](PlanRequest& changed) { changed.recomputation = Recomputation::WhereNeeded; });
  if (!request.microbatches.empty())
    add("leave `microbatches` out", "without `microbatches`",
        [](PlanRequest& changed) { changed.microbatches.clear(); });
  if (!request.schedules.empty())
    add("leave `schedule` out", "without `schedule`", [](PlanRequest& changed) { changed.schedules.clear(); });
  if (!ranks_are_listed && request.replicas == std::vector<int>{1})
    for (int factor = 2; std::int64_t{request.ranks} * factor <= layers; factor *= 2)
      add(fmt::format("raise `ranks` to {}", request.ranks * factor),
          fmt::format("with `ranks` {}", request.ranks * factor),
          [factor](PlanRequest& changed) { changed.ranks *= factor; });
  return knobs;
}

/// The bytes that the leanest of the largest numbers of microbatches is above the caps.
double least_excess(const LayerCosts& costs, const PlanRequest& request) {
  constexpr std::size_t most = 24;
  double least = no_cap;
  try {
    PlanningProblem problem(costs, request);
    Evaluation evaluation(problem);
    std::vector<std::string> notes;
    std::vector<Configuration> configurations = problem.configurations(notes);
    std::stable_sort(configurations.begin(), configurations.end(), [](const Configuration& a, const Configuration& b) {
      return a.microbatches * a.replicas > b.microbatches * b.replicas;
    });
    for (std::size_t index = 0; index < configurations.size() && index < most && least > 0; ++index)
      least = std::min(least, evaluation.evaluate_leanest(configurations[index]).excess);
  } catch (const Error&) {
    return no_cap;  // this knob cannot be turned
  }
  return least;
}

Bytes rounded_up(double bytes) { return {static_cast<std::int64_t>(std::ceil(bytes))}; }

// As people write it, and never too little: "36MiB".
std::string size_that_holds(Bytes bytes) {
  constexpr std::int64_t kibibyte = 1 << 10;
  constexpr std::int64_t mebibyte = 1 << 20;
  const bool is_large = bytes.count >= 16 * mebibyte;
  const std::int64_t unit = is_large ? mebibyte : kibibyte;
  return fmt::format("{}{}", (bytes.count + unit - 1) / unit, is_large ? "MiB" : "KiB");
}

}  // namespace

Error Shortfall::error(const PlanningProblem& problem) const {
  check_invariant(nearest_.has_value(), "nothing fits, and nothing was tried");
  const PlanRequest& request = problem.request();
  const Configuration& configuration = nearest_->configuration;
  const double cap = problem.cap(nearest_->excess_rank);
  std::string remedy = request.memory
                           ? fmt::format("raise `memory` to {}", size_that_holds(rounded_up(cap + nearest_->excess)))
                           : "raise memory_cap_bytes";
  const Knob* nearest_knob = nullptr;
  double least = nearest_->excess;
  const std::vector<Knob> knobs = knobs_of(request, std::ssize(problem.costs().layers), !problem.costs().ranks.empty());
  for (const Knob& knob : knobs) {
    const double excess = least_excess(problem.costs(), knob.request);
    if (excess >= least) continue;
    least = excess;
    nearest_knob = &knob;
    if (excess == 0) break;
  }
  if (nearest_knob != nullptr && least == 0)
    remedy += fmt::format(", or {}, with which it fits", nearest_knob->remedy);
  else if (nearest_knob != nullptr)
    remedy += fmt::format("; even {} it falls {} short", nearest_knob->circumstance, to_string(rounded_up(least)));
  const bool recomputes = std::find(nearest_->division.recomputed.begin(), nearest_->division.recomputed.end(), true) !=
                          nearest_->division.recomputed.end();
  return bad_input(fmt::format("no plan fits: the nearest ({}, {}{}) takes {} more than the {} of rank {}",
                               configuration.shape->family->name, counted(configuration.microbatches, "microbatch"),
                               recomputes ? ", with recomputation" : "", to_string(rounded_up(nearest_->excess)),
                               to_string(rounded_up(cap)), nearest_->excess_rank),
                   "room for one plan at least", remedy);
}

}  // namespace penstock
