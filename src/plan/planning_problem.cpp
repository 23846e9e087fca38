#include "plan/planning_problem.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <set>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/schedule/replicas.h"

namespace penstock {
namespace {

constexpr std::int64_t most_ranks = 100'000;
constexpr std::int64_t most_batch = std::int64_t{1} << 31;
// A schedule of more passes than this takes seconds and gigabytes to look at.
constexpr std::int64_t most_planned_passes = 4'000'000;

/// The first of them by name.
std::string names_of(const std::vector<LayerTie>& ties) {
  return ties.size() == 1
             ? to_string(ties.front())
             : fmt::format("{}, and {} more,", to_string(ties.front()), counted(std::ssize(ties) - 1, "tie"));
}

/// Whether the family's schedule for so many microbatches has `I` and `W`.
bool splits_backward(const FamilyShape& shape, int ranks, int microbatches) {
  return has_split_backward(
      make_schedule(shape.family->name, ranks, microbatches,
                    shape.family->stages_per_rank_varies ? std::optional(shape.stages_per_rank) : std::nullopt));
}

/// The shape as it is with each of these numbers of microbatches: DualPipe and DualPipeV have `I` and `W` only where
/// the microbatches fill the middle of the step, and then with any more of them.
std::vector<std::shared_ptr<const FamilyShape>> shapes_with(const std::shared_ptr<const FamilyShape>& shape, int ranks,
                                                            const std::vector<int>& counts) {
  std::vector<std::shared_ptr<const FamilyShape>> shapes(counts.size(), shape);
  const int few = std::min(ranks, 4);
  if (shape->split_backward || !splits_backward(*shape, few, 4 * few)) return shapes;
  FamilyShape split = *shape;
  split.split_backward = true;
  const auto with_parts = std::make_shared<const FamilyShape>(std::move(split));
  int enough = std::numeric_limits<int>::max();
  for (std::size_t index = 0; index < counts.size(); ++index) {
    const int count = counts[index];
    if (count < enough && static_cast<std::int64_t>(ranks) * count <= most_planned_passes &&
        splits_backward(*shape, ranks, count))
      enough = count;
    if (count >= enough) shapes[index] = with_parts;
  }
  return shapes;
}

}  // namespace

bool has_split_backward(const Schedule& schedule) {
  for (const auto& actions : schedule.actions)
    for (const Action& action : actions)
      if (action.kind == ActionKind::InputBackward) return true;
  return false;
}

std::vector<int> sensible_microbatches(std::int64_t batch, int ranks) {
  constexpr std::int64_t all_up_to = 32;
  std::set<std::int64_t> counts;
  for (std::int64_t count = 1; count <= std::min(batch, all_up_to); ++count) counts.insert(count);
  for (std::int64_t divisor = 1; divisor * divisor <= batch; ++divisor)
    if (batch % divisor == 0) counts.insert({divisor, batch / divisor});
  // Rounds of the ranks, in which the loops of interleaved schedules come out even, and between them in steps of a
  // quarter or so; beyond 64 rounds the bubble is no longer worth the smaller microbatches.
  for (const std::int64_t rounds : {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64})
    counts.insert(rounds * ranks);
  counts.insert(2LL * ranks - 1);
  // A number of each magnitude, even if the batch has few divisors.
  for (std::int64_t samples = 1; samples < batch; samples *= 2) counts.insert((batch + samples - 1) / samples);
  std::vector<int> sensible;
  for (const std::int64_t count : counts)
    if (count <= batch) sensible.push_back(static_cast<int>(count));
  return sensible;
}

PlanningProblem::PlanningProblem(const LayerCosts& costs, const PlanRequest& request)
    : given_costs_(&costs), costs_(&costs), request_(&request) {
  check();
  if (shares_ties()) {
    shared_ = with_shared_ties(costs);
    costs_ = &*shared_;
  }
  const auto ranks = as_size(request.ranks);
  speeds_.assign(ranks, 1);
  caps_.assign(ranks, request.memory ? static_cast<double>(request.memory->count) : no_cap);
  for (std::size_t rank = 0; rank < costs.ranks.size(); ++rank) {
    speeds_[rank] = costs.ranks[rank].speed;
    if (costs.ranks[rank].memory_cap)
      caps_[rank] = std::min(caps_[rank], static_cast<double>(costs.ranks[rank].memory_cap->count));
  }
  capped_ = std::any_of(caps_.begin(), caps_.end(), [](double cap) { return cap < no_cap; });
  check_range();
}

void PlanningProblem::check() const {
  validate(*costs_);
  const PlanRequest& request = *request_;
  if (request.ranks < 1 || request.ranks > most_ranks)
    throw bad_input(fmt::format("`ranks` is {}", request.ranks), fmt::format("1 to {}", most_ranks), "change `ranks`");
  if (request.batch < 1 || request.batch > most_batch)
    throw bad_input(fmt::format("`batch` is {}", request.batch), fmt::format("1 to {}", most_batch), "change `batch`");
  const auto layers = std::ssize(costs_->layers);
  // Auto may take as many replicas as ranks.
  const int most_replicas =
      request.replicas.empty() ? request.ranks : *std::max_element(request.replicas.begin(), request.replicas.end());
  if (most_replicas >= 1 && request.ranks / most_replicas > layers)
    throw bad_input(fmt::format("`ranks` is {}", request.ranks),
                    fmt::format("at most {}, the number of layers", layers), "lower `ranks`, or raise `replicas`");
  if (!costs_->ranks.empty() && std::ssize(costs_->ranks) != request.ranks)
    throw bad_input(
        fmt::format("`ranks` is {} with the costs of {}", request.ranks, counted(std::ssize(costs_->ranks), "rank")),
        "as many", "change `ranks`, or the list \"ranks\" of the costs");
  for (const int replicas : request.replicas)
    if (replicas < 1 || request.ranks % replicas != 0 || request.batch % replicas != 0)
      throw bad_input(
          fmt::format("`replicas` is {}", replicas),
          fmt::format("a divisor of {} and of the batch of {}", counted(request.ranks, "rank"), request.batch),
          "change `replicas`");
  for (const int count : request.microbatches)
    if (count < 1 || count > request.batch)
      throw bad_input(fmt::format("`microbatches` is {}", count),
                      fmt::format("1 to {}, the samples of the batch", request.batch), "change `microbatches`");
  for (const int count : request.stages_per_rank)
    if (count < 1 || static_cast<std::int64_t>(count) * (request.ranks / most_replicas) > layers)
      throw bad_input(fmt::format("`stages_per_rank` is {}", count),
                      fmt::format("at least 1, and in all no more stages than the {}", counted(layers, "layer")),
                      "change `stages_per_rank`");
  for (const std::string& name : request.schedules)
    if (name != synthesised_schedule) static_cast<void>(make_schedule(name, 2, 2));
}

void PlanningProblem::check_range() const {
  const SampleRange range = measured_range(*costs_);
  if (range.least > range.most)
    throw bad_input("layers that were measured at no microbatch size in common", "one size at least for all of them",
                    "measure all layers at the same sizes");
  bool any = false;
  for (const int replicas : request_->replicas.empty() ? std::vector<int>{1} : request_->replicas)
    any = any || !microbatch_counts(replicas, request_->ranks / replicas).empty();
  if (any) return;
  if (request_->gradient_tree > 0)
    throw bad_input(fmt::format("`gradient_tree` is {} for a batch of {}", request_->gradient_tree, request_->batch),
                    "0, or a power of two that the replicas divide and that divides the microbatches",
                    "change `gradient_tree`, `replicas`, `microbatches` or the batch");
  const std::string asked =
      request_->microbatches.empty()
          ? fmt::format("a batch of {}", request_->batch)
          : fmt::format("`microbatches` {} of a batch of {}", request_->microbatches.front(), request_->batch);
  throw bad_input(asked,
                  fmt::format("microbatches of {} to {} samples, between which the layer \"{}\" was measured",
                              range.least, range.most, shortened(range.narrowest_layer)),
                  "measure more sizes, or change the number of microbatches or the batch");
}

double PlanningProblem::samples(int replicas, int microbatches) const {
  return static_cast<double>(request_->batch) / replicas / microbatches;
}

const LayersAtSize& PlanningProblem::at(int replicas, int microbatches) {
  auto& known = at_size_[static_cast<std::int64_t>(replicas) * microbatches];
  if (!known) known = std::make_unique<LayersAtSize>(*costs_, samples(replicas, microbatches));
  return *known;
}

bool PlanningProblem::ranks_alike() const {
  return std::all_of(speeds_.begin(), speeds_.end(), [&](double speed) { return speed == speeds_.front(); });
}

bool PlanningProblem::is_wanted(const ScheduleFamily& family) const {
  if (family.forward_only) return false;
  if (family.bidirectional && request_->gradient_tree > 0) return false;
  // A stage on two ranks of other speeds would have two costs, and a parameter of it two objects.
  if (family.bidirectional && (!request_->copies_of_stages || !ranks_alike() || shares_ties())) return false;
  // A synthesised schedule takes the place of a published one: where it is all that is asked for, of any.
  const auto& names = request_->schedules;
  return std::all_of(names.begin(), names.end(),
                     [](const std::string& name) { return name == synthesised_schedule; }) ||
         std::find(names.begin(), names.end(), family.name) != names.end();
}

std::vector<int> PlanningProblem::microbatch_counts(int replicas, int ranks) const {
  const SampleRange range = measured_range(*costs_);
  std::vector<int> counts;
  const std::int64_t part = request_->batch / replicas;
  for (const int count : request_->microbatches.empty() ? sensible_microbatches(part, ranks) : request_->microbatches) {
    if (count > part || (request_->equal_microbatches && part % count != 0)) continue;
    if (!allows_gradient_tree(request_->gradient_tree, replicas, std::int64_t{replicas} * count)) continue;
    const double mean = samples(replicas, count);
    if (mean >= static_cast<double>(range.least) && std::ceil(mean) <= static_cast<double>(range.most))
      counts.push_back(count);
  }
  return counts;
}

std::vector<std::shared_ptr<const FamilyShape>> PlanningProblem::shapes(int ranks, std::int64_t& parting) const {
  std::vector<std::shared_ptr<const FamilyShape>> shapes;
  for (const ScheduleFamily& family : schedule_families()) {
    if (!is_wanted(family) || ranks % family.ranks_multiple != 0) continue;
    std::vector<int> counts{family.stages_per_rank};
    if (family.stages_per_rank_varies) counts = {2, 3, 4, 6, 8};
    for (const int count : counts) {
      const auto& asked = request_->stages_per_rank;
      if (!asked.empty() && std::find(asked.begin(), asked.end(), count) == asked.end()) continue;
      if (count % family.stages_multiple != 0 || static_cast<std::int64_t>(count) * ranks > std::ssize(costs_->layers))
        continue;
      if (request_->cut && std::ssize(*request_->cut) != static_cast<std::ptrdiff_t>(count) * ranks) continue;
      // On one rank there is nothing to schedule: the simplest one says it all.
      if (ranks == 1 && family.name != "1f1b" && family.name != "gpipe" && request_->schedules.empty()) continue;
      const Schedule sample =
          make_schedule(family.name, ranks, 2, family.stages_per_rank_varies ? std::optional(count) : std::nullopt);
      FamilyShape shape{&family, count, has_split_backward(sample), sample.placement};
      if (shares_ties()) {
        std::vector<std::int32_t> rank_of;
        rank_of.reserve(sample.placement.holders.size());
        for (const auto& holders : sample.placement.holders) rank_of.push_back(holders.front().value);
        const auto ties = std::make_shared<TiedLayers>(given_costs_->ties, std::move(rank_of), costs_->layers.size());
        if (request_->cut ? !ties->are_kept_by(*request_->cut) : ties->ways().empty()) {
          ++parting;
          continue;
        }
        shape.ties = ties;
      }
      shapes.push_back(std::make_shared<FamilyShape>(std::move(shape)));
    }
  }
  return shapes;
}

Error PlanningProblem::no_shared_ties() const {
  return bad_input(
      fmt::format("no plan keeps {} on one rank", names_of(given_costs_->ties)),
      "a schedule and a cut under which one rank has all layers that share a parameter, as the gradients of two "
      "cannot be added there",
      "allow zb-v, v-half or dualpipev, whose first and last stage are on one rank, lower `ranks`, or untie them");
}

std::vector<Configuration> PlanningProblem::configurations(std::vector<std::string>& notes) const {
  std::vector<int> replica_counts = request_->replicas;
  if (replica_counts.empty())
    for (int count = 1; count <= request_->ranks; ++count)
      if (request_->ranks % count == 0 && request_->batch % count == 0) replica_counts.push_back(count);
  std::vector<Configuration> configurations;
  std::int64_t too_large = 0;
  std::int64_t parting = 0;
  for (const int replicas : replica_counts) {
    const int ranks = request_->ranks / replicas;
    const bool caps_alike = std::all_of(caps_.begin(), caps_.end(), [&](double cap) { return cap == caps_.front(); });
    if (replicas > 1 && (!ranks_alike() || !caps_alike || !costs_->links.empty())) {
      notes.emplace_back("replicas were not looked at: ranks or links are not alike");
      continue;
    }
    if (ranks > std::ssize(costs_->layers)) continue;
    const auto counts = microbatch_counts(replicas, ranks);
    for (const auto& shape : shapes(ranks, parting)) {
      const auto with_counts = shapes_with(shape, ranks, counts);
      for (std::size_t index = 0; index < counts.size(); ++index) {
        const int count = counts[index];
        if (static_cast<std::int64_t>(ranks) * shape->stages_per_rank * count * 3 > most_planned_passes)
          ++too_large;
        else
          configurations.push_back({replicas, ranks, count, with_counts[index], 0});
      }
    }
  }
  if (too_large > 0 && configurations.empty())
    throw bad_input(fmt::format("a batch of {} in microbatches that were measured", request_->batch),
                    fmt::format("a step of at most {} million passes", most_planned_passes / 1'000'000),
                    "measure larger microbatches, or lower `batch`");
  if (too_large > 0)
    notes.push_back(fmt::format("{} of more than {} million passes a step were not looked at",
                                counted(too_large, "configuration"), most_planned_passes / 1'000'000));
  if (parting > 0 && too_large == 0 && configurations.empty()) throw no_shared_ties();
  if (parting > 0)
    notes.push_back(fmt::format("{} not looked at: no cut for {} keeps {} on one rank",
                                parting == 1 ? "1 schedule was" : fmt::format("{} schedules were", parting),
                                parting == 1 ? "it" : "them", names_of(given_costs_->ties)));
  const SampleRange range = measured_range(*costs_);
  if (request_->microbatches.empty() && (range.least > 1 || range.most < request_->batch))
    notes.push_back(
        fmt::format("only microbatches of {} to {} samples were looked at: between these the layers were "
                    "measured",
                    range.least, range.most));
  return configurations;
}

}  // namespace penstock
