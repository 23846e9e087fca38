/// \file
/// The plan: cut, schedule, number of microbatches, recomputation and replicas for a network on a machine, chosen from
/// the costs of its layers, with the step that it is predicted to take; its neighbours and plans for other
/// circumstances; and its file.
///
///     const penstock::LayerCosts costs = penstock::load_layer_costs("cost.json");
///     const penstock::PlanAnswer answer = penstock::make_plans(costs, {.ranks = 4, .batch = 64});
///     penstock::save_plan(answer.plans.front(), "plan.toml");
///
/// A plan's file is TOML: the settings of `penstock train` by their names, and what was predicted in a table of its
/// own.
///
///     batch = 64
///     stages = 8
///     cut = "3,6,9,12,15,18,21"
///     schedule = "zb-v"
///     microbatches = 8
///     recompute = "none"
///
///     [prediction]
///     ranks = 4
///     stages-per-rank = 2
///     replicas = 1
///     layers = 24
///     step-ms = 142.1
///     pipeline-ms = 141.8
///     exchange-ms = 0
///     update-ms = 0.3
///     utilisation = 0.93
///     samples-per-second = 450.4
///     memory-bytes = [1073741824, 1073741824, 1073741824, 1073741824]
///     stage-ms = [2.1, 2.2, …]
///     costs = "cost.json"
///     ties = [{owner = {layer = 0, parameter = "token.weight"}, copy = {layer = 23, parameter = "output.weight"},
///              bytes = 3145728}]
///     shared-ties = true    # planned for tied parameters that are one object
///
/// `ties` are those of the costs, `shared-ties` is `PlanRequest::share_ties`; both are left out if there is nothing
/// to say. A schedule that has no name of its own (a synthesised one, or one with another number of stages a rank than
/// its name stands for) is a CSV file beside it, and `schedule` its path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"
#include "penstock/settings/settings.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// For each stage the index of its first layer: strictly ascending, the first is 0.
using Cut = std::vector<std::int64_t>;

/// Stages of as equal numbers of layers as possible. \throws Error (BadInput) for more stages than layers.
[[nodiscard]] Cut uniform_cut(std::int64_t layers, int stages);

/// The cut whose heaviest stage is lightest; of equal ones, the cut whose first stages are shortest. Exact, by dynamic
/// programming. \param weights of the layers, not negative. \throws Error (BadInput) for more stages than layers.
[[nodiscard]] Cut balanced_cut(const std::vector<std::int64_t>& weights, int stages);

/// The cut of so many layers that was chosen. \param choice uniform or explicit: by parameters needs the network
/// (`balanced_cut`), and automatic a plan. \throws Error (BadInput) if it does not make `stages` stages of the layers.
[[nodiscard]] Cut cut_of(const CutChoice& choice, std::int64_t layers, int stages);

/// The choice of this very cut: explicit, or uniform for a single stage.
[[nodiscard]] CutChoice choice_of(const Cut& cut);

/// The name under which a plan's schedule is one that was synthesised.
inline constexpr const char* synthesised_schedule = "synthesised";

/// One step as it is predicted: the simulated pipeline, then the exchange of gradients where stages, the network or
/// single parameters have copies, then the update.
struct PlanPrediction {
  Milliseconds step;
  Milliseconds pipeline;   ///< from the first action to the last
  Milliseconds exchange;   ///< of gradients between copies, those of tied parameters among them
  Milliseconds update;     ///< of the weights, on the slowest rank
  double utilisation = 0;  ///< the share of ranks × step in which passes are computed
  double samples_per_second = 0;
  std::vector<Bytes> memory = {};               ///< the peak of each rank of one replica
  std::vector<Milliseconds> stage_passes = {};  ///< by stage, forward and backward of one microbatch

  friend bool operator==(const PlanPrediction&, const PlanPrediction&) = default;
};

/// What to run and what to expect of it. A value.
struct Plan {
  int ranks = 1;     ///< of one replica
  int replicas = 1;  ///< copies of the whole pipeline, each of which takes an equal part of the batch
  std::int64_t batch = 1;
  int microbatches = 1;  ///< of one replica's part of the batch; sizes differ by at most one sample
  std::string schedule;  ///< a generator's name, or `synthesised_schedule`
  int stages_per_rank = 1;
  std::string schedule_csv = {};  ///< the text form of a synthesised one; otherwise empty
  std::int64_t layers = 1;
  Cut cut = {0};
  std::vector<bool> recomputed = {};  ///< by stage
  PlanPrediction prediction = {};
  std::vector<LayerTie> ties = {};  ///< of the costs that it was made from
  bool shared_ties = false;         ///< as it was asked for: `PlanRequest::share_ties`
  int gradient_tree = 0;            ///< as it was asked for: `PlanRequest::gradient_tree`
  std::string costs_file = {};      ///< that the plan was made from; empty if it is not known
  int threads_per_rank = 0;         ///< on which the costs were measured; 0 if it is not known

  [[nodiscard]] int stages() const { return static_cast<int>(cut.size()); }
  /// Samples of a microbatch, on average.
  [[nodiscard]] double samples() const { return static_cast<double>(batch) / replicas / microbatches; }

  friend bool operator==(const Plan&, const Plan&) = default;
};

/// Which stages run their forward again in the backward.
enum class Recomputation {
  WhereNeeded,  ///< those whose activations do not fit otherwise
  None,
  Full,
};

/// What to plan for, and what may be chosen. An empty list leaves the choice free.
struct PlanRequest {
  int ranks = 1;                            ///< all of them, those of every replica
  std::int64_t batch = 1;                   ///< samples of an update
  std::optional<Bytes> memory = {};         ///< of every rank; if the costs name a smaller cap, that one applies
  std::vector<std::string> schedules = {};  ///< names; `synthesised_schedule` among them
  std::vector<int> microbatches = {};
  bool equal_microbatches = false;  ///< only numbers of microbatches that divide each replica's part of the batch
  std::vector<int> stages_per_rank = {};
  std::vector<int> replicas = {1};
  /// That of the run: 0, or a power of two, for bits that do not depend on the replicas. Plans then have only numbers
  /// of replicas that divide it, and numbers of microbatches of all replicas that it divides; stages keep some more
  /// gradients (`GradientRuns`).
  int gradient_tree = 0;
  Recomputation recomputation = Recomputation::WhereNeeded;
  std::optional<Cut> cut = {};
  /// Whether a rank begins its next step while others are still at the last, as in runs that need not wait for the norm
  /// of the gradient. The step is then the longest time of a rank from its first action to its update, which schedules
  /// without bubbles make short, and not the time from the first action of any rank to the last of all.
  bool steps_overlap = false;
  bool copies_of_stages = true;  ///< whether schedules may hold a stage on two ranks (Chimera, DualPipe)
  /// For a runtime that cannot add the gradients of tied parameters on two ranks: only cuts that keep all layers of a
  /// tie on one rank, where the parameter is one object with one weight, gradient and optimizer state.
  bool share_ties = false;
  std::size_t most_plans = 5;  ///< that are returned
  /// How many passes may be simulated, of which about 10 million take a second. After that the best so far are taken.
  std::int64_t most_simulated_passes = 50'000'000;
};

/// The best plans and how they were found.
struct PlanAnswer {
  std::vector<Plan> plans;          ///< the fastest first, at least one; each a configuration of its own
  std::int64_t configurations = 0;  ///< schedule, stages a rank, microbatches and replicas
  std::int64_t simulated = 0;       ///< of them
  std::int64_t bounded_away = 0;    ///< that no simulation could have made better than the plans returned
  std::int64_t over_memory = 0;     ///< that fit under no cut
  std::int64_t left_out = 0;        ///< for which there was no effort left
  /// What was not looked at and why, and what the prediction supposes: a clause each.
  std::vector<std::string> notes = {};

  friend bool operator==(const PlanAnswer&, const PlanAnswer&) = default;
};

/// Searches cuts × schedules × stages a rank × microbatches × recomputation × replicas. The cut of a configuration
/// makes its slowest stage, link included, fastest under the caps, exactly, by dynamic programming; the best are then
/// moved on in simulation. Equal input gives equal plans. Thread-safe.
/// \throws Error (BadInput) for sizes below 1, more ranks than layers, microbatch sizes that were not measured, and
/// if nothing fits into the memory: then the message says how much is missing and what comes nearest. With
/// `share_ties` also if no cut keeps the layers of the ties on one rank: the message names the parameters.
[[nodiscard]] PlanAnswer make_plans(const LayerCosts& costs, const PlanRequest& request);

/// The schedule of a plan. \throws Error (BadInput) if the plan is none of this build's.
[[nodiscard]] VerifiedSchedule schedule_of(const Plan& plan);

/// The cost of its stages, with the caps of the costs. \throws Error (BadInput) if they do not fit each other.
[[nodiscard]] Cost cost_of(const Plan& plan, const LayerCosts& costs);

/// The step of the plan, simulated, with memory.
[[nodiscard]] Timeline timeline_of(const Plan& plan, const LayerCosts& costs);

/// One configuration's prediction, for a drawing of step time over microbatches.
struct SweepPoint {
  std::string schedule;
  int stages_per_rank = 1;
  int microbatches = 1;
  Milliseconds step;
  bool fits = true;  ///< within the memory

  friend bool operator==(const SweepPoint&, const SweepPoint&) = default;
};

/// Every schedule that was asked for at every sensible number of microbatches, by schedule and then microbatches, as
/// far as `most_simulated_passes` goes. Cuts are those of the dynamic programming. \throws as `make_plans`.
[[nodiscard]] std::vector<SweepPoint> sweep_plans(const LayerCosts& costs, const PlanRequest& request);

/// A plan that was not chosen, or would be under other circumstances.
struct Alternative {
  std::string what;  ///< "fewer microbatches", "twice the memory"
  Plan plan;

  friend bool operator==(const Alternative&, const Alternative&) = default;
};

/// The first plan with one thing changed each, as far as that can be planned: fewer and more microbatches, the best
/// other schedule, the uniform cut. \param answer of `make_plans` for the same costs and request.
[[nodiscard]] std::vector<Alternative> neighbours(const LayerCosts& costs, const PlanRequest& request,
                                                  const PlanAnswer& answer);

/// The best plans with twice the memory, links ten times as fast, and a batch twice as large; only what can make a
/// difference and was measured. Each takes a few tenths of the request's effort. \param answer as above.
[[nodiscard]] std::vector<Alternative> other_circumstances(const LayerCosts& costs, const PlanRequest& request,
                                                           const PlanAnswer& answer);

/// The TOML form. \param schedule_file what `schedule` says if the plan needs a file.
[[nodiscard]] std::string to_toml(const Plan& plan, std::string_view schedule_file = "");

/// The schedule's file beside a plan's: the same path with the ending `.csv`.
[[nodiscard]] std::filesystem::path schedule_file_beside(std::filesystem::path plan_file);

/// Writes the TOML form to `path` and, if the plan needs one, the schedule to `schedule_file_beside(path)`, which the
/// plan names by its last part alone: both may be moved together.
/// \throws Error (BadInput, RunFailed)
void save_plan(const Plan& plan, const std::filesystem::path& path);

/// Reads what `save_plan` wrote. Settings of `penstock train` that are no part of a plan are passed over.
/// \throws Error (BadInput) that names the file and the key.
[[nodiscard]] Plan load_plan(const std::filesystem::path& path);

}  // namespace penstock
