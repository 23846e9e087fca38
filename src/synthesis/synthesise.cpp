#include "penstock/synthesis/synthesise.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

#include "synthesis/exact.h"
#include "synthesis/improve.h"
#include "synthesis/list_scheduling.h"
#include "synthesis/lower_bound.h"

namespace penstock {
namespace {

// Branch and bound is tried on pipelines of up to so many passes, and given up after so many beginnings.
constexpr std::size_t exact_passes = 100;
constexpr std::int64_t exact_nodes = 2'000'000;
constexpr std::int64_t nodes_an_evaluation = 300;

std::vector<double> count_caps(const SynthesisSettings& settings) {
  const auto ranks = as_size(settings.ranks);
  std::vector<double> caps(ranks, no_cap);
  for (std::size_t rank = 0; rank < ranks && !settings.memory_caps.empty(); ++rank)
    caps[rank] = settings.memory_caps[settings.memory_caps.size() == 1 ? 0 : rank];
  return caps;
}

// What is left of a rank's bytes for activations when its stages' weights have theirs, and messages `for_messages`.
std::vector<double> byte_caps(const SynthesisSettings& settings, const Cost& cost,
                              const std::vector<Bytes>& for_messages) {
  std::vector<double> caps(as_size(settings.ranks), no_cap);
  if (cost.memory_caps.empty()) return caps;
  for (std::size_t rank = 0; rank < caps.size(); ++rank)
    caps[rank] = static_cast<double>((cost.memory_caps[rank] - for_messages[rank]).count);
  for (std::size_t stage = 0; stage < cost.stages.size(); ++stage) {
    double& cap = caps[settings.placement.holders[stage].front().index()];
    cap -= static_cast<double>(memory_of_weights_with_gradients(cost.stages[stage]).count);
  }
  return caps;
}

void check_positive(int ranks, int microbatches) {
  if (ranks < 1 || microbatches < 1)
    throw bad_input(counted(ranks, "rank") + " and " + counted(microbatches, "microbatch"), "at least 1 of each",
                    "raise the smaller number");
}

// The time of an order grows with the passes, that of some with the stages of a rank or the square of the stages too.
void check_sizes(std::int64_t stages, int stages_per_rank, int microbatches) {
  const std::string got = fmt::format("{}, {} on a rank, and {} to synthesise for", counted(stages, "stage"),
                                      stages_per_rank, counted(microbatches, "microbatch"));
  if (stages > most_synthesised_stages || stages_per_rank > most_synthesised_stages_per_rank)
    throw bad_input(
        got, fmt::format("at most {} stages, {} on a rank", most_synthesised_stages, most_synthesised_stages_per_rank),
        "lower `ranks` or `stages_per_rank`, or take a published schedule");
  if (stages > most_synthesised_passes / microbatches)
    throw bad_input(got, fmt::format("a product of stages and microbatches of at most {}", most_synthesised_passes),
                    "lower `ranks` or `microbatches`, or take a published schedule");
}

void check(const SynthesisSettings& settings, const Cost& cost) {
  validate(cost);
  check_positive(settings.ranks, settings.microbatches);
  if (settings.placement.holders.size() != cost.stages.size())
    throw bad_input("a cost of " + counted(std::ssize(cost.stages), "stage"),
                    fmt::format("the {} of the placement", counted(std::ssize(settings.placement.holders), "stage")),
                    "give one entry for each stage, or another placement");
  for (const auto& holders : settings.placement.holders)
    if (holders.size() != 1 || holders.front().value < 0 || holders.front().value >= settings.ranks)
      throw bad_input("a placement with a stage on two ranks, or on one that does not exist", "one rank a stage",
                      "take a loop or a V");
  std::vector<bool> holds(as_size(settings.ranks), false);
  for (const auto& holders : settings.placement.holders) holds[holders.front().index()] = true;
  if (const auto idle = std::find(holds.begin(), holds.end(), false); idle != holds.end())
    throw bad_input(fmt::format("rank {} without a stage", idle - holds.begin()), "at least one stage on every rank",
                    "give more stages or fewer ranks");
  std::vector<int> stages_of(as_size(settings.ranks), 0);
  for (const auto& holders : settings.placement.holders) ++stages_of[holders.front().index()];
  const auto stages = static_cast<int>(cost.stages.size());
  check_sizes(stages, *std::max_element(stages_of.begin(), stages_of.end()), settings.microbatches);
  for (const std::size_t caps : {settings.memory_caps.size(), cost.memory_caps.size()})
    if (caps > 1 && caps != as_size(settings.ranks))
      throw bad_input("memory caps for " + counted(static_cast<std::int64_t>(caps), "rank"),
                      "one for each of " + counted(settings.ranks, "rank"), "give one for each rank, or one for all");
  if (cost.memory_caps.size() == 1 && settings.ranks != 1)
    throw bad_input("memory caps for 1 rank", "one for each of " + counted(settings.ranks, "rank"),
                    "correct memory_cap_bytes");
}

// The search asks for room where a forward begins: that no I takes more is what makes its schedules keep the caps.
void check_shares(const SynthesisSettings& settings, const Cost& cost) {
  if (settings.memory_caps.empty() && cost.memory_caps.empty()) return;
  for (std::size_t stage = 0; stage < cost.stages.size(); ++stage)
    if (const double share = cost.stages[stage].weight_activation_share; share > 1)
      throw bad_input(
          fmt::format("stages[{}].weight_activation_share is {}, above 1, together with memory caps", stage, share),
          "at most 1 where memory is capped", "leave the caps out, or count the larger size as the activation");
}

// A microbatch alone holds an activation on each of a rank's stages; every schedule holds as many at some time.
void check_caps(const PipelineProblem& problem, const Cost& cost) {
  for (std::size_t rank = 0; rank < problem.stages_of.size(); ++rank) {
    HeldActivations one;
    for (const std::int32_t stage : problem.stages_of[rank]) one.begin_forward(problem, stage);
    if (one.fits(problem, rank)) continue;
    if (one.count > problem.count_cap[rank])
      throw bad_input(fmt::format("a memory cap of {} on rank {}",
                                  counted(static_cast<std::int64_t>(problem.count_cap[rank]), "activation"), rank),
                      fmt::format("at least {}, the smallest that a schedule meets", one.count), "raise `memory_cap`");
    throw bad_input(fmt::format("a memory cap of {} on rank {}", to_string(cost.memory_caps[rank]), rank),
                    fmt::format("at least {}, the smallest that a schedule meets",
                                to_string(cost.memory_caps[rank] +
                                          Bytes{static_cast<std::int64_t>(one.bytes - problem.byte_cap[rank])})),
                    "raise memory_cap_bytes");
  }
}

class Synthesiser {
 public:
  // `budget` is of the time from `begun` on.
  Synthesiser(const SynthesisSettings& settings, const Cost& cost, const Clock& clock, Milliseconds begun,
              Milliseconds budget, PipelineProblem problem)
      : settings_(settings),
        cost_(cost),
        clock_(clock),
        begun_(begun),
        budget_(budget),
        problem_(std::move(problem)),
        evaluator_(problem_),
        bound_(span_lower_bound(problem_)) {}

  Synthesis run() {
    try_generators();
    try_policies();
    const bool proved = at_bound() || prove();
    if (!proved) anneal();
    Schedule schedule = schedule_of(problem_, settings_.placement, order_);
    VerifiedSchedule verified = verify(std::move(schedule));
    Timeline timeline = simulate(verified, cost_);
    const bool optimal = proved || at_bound();
    return {
        std::move(verified),        std::move(timeline), {score_.longest}, {optimal ? score_.longest : bound_}, optimal,
        std::move(best_generator_), {generator_span_}};
  }

 private:
  static constexpr double tolerance = 1e-12;
  static constexpr int legs = 4;
  static constexpr std::size_t most_starts = 4;

  struct Start {
    SpanScore score;
    PassOrder order;
  };

  // The share of the budget that is gone.
  [[nodiscard]] double spent() const {
    if (settings_.most_evaluations > 0)
      return static_cast<double>(evaluations_) / static_cast<double>(settings_.most_evaluations);
    return (clock_.now() - begun_).count / std::max(budget_.count, 1e-3);
  }

  [[nodiscard]] bool at_bound() const { return score_.longest <= bound_ * (1 + tolerance); }

  SpanScore consider(PassOrder order) {
    ++evaluations_;
    const SpanScore score = evaluator_.evaluate(order);
    remember({score, order});
    if (score < score_) {
      score_ = score;
      order_ = std::move(order);
    }
    return score;
  }

  // The best orders that differ in their score.
  void remember(Start start) {
    const auto place = std::lower_bound(starts_.begin(), starts_.end(), start,
                                        [](const Start& a, const Start& b) { return a.score < b.score; });
    if (place != starts_.end() && !(start.score < place->score)) return;
    if (starts_.size() == most_starts && place == starts_.end()) return;
    starts_.insert(place, std::move(start));
    if (starts_.size() > most_starts) starts_.pop_back();
  }

  [[nodiscard]] bool is_legal(const PassOrder& order) const {
    for (std::int32_t rank = 0; rank < problem_.ranks; ++rank)
      if (!is_row_legal(problem_, rank, entry(order, rank))) return false;
    return true;
  }

  // From the last one on, the families being about in the order of their years: where the time is enough for one only,
  // it is not the naive one. Without any that keeps within the caps all have been tried.
  void try_generators() {
    const std::span<const ScheduleFamily> families = schedule_families();
    for (std::size_t from_last = 0; from_last < families.size(); ++from_last) {
      const ScheduleFamily& family = families[families.size() - 1 - from_last];
      try_generator(family);
      if (spent() >= 1 && !best_generator_.empty()) return;
    }
  }

  // The published shape, and with its weight gradients moved to where these costs want them.
  void try_generator(const ScheduleFamily& family) {
    if (family.bidirectional || family.name == "forward-only" || problem_.stages % problem_.ranks != 0) return;
    const int stages_per_rank = problem_.stages / problem_.ranks;
    if ((!family.stages_per_rank_varies && family.stages_per_rank != stages_per_rank) ||
        stages_per_rank % family.stages_multiple != 0)
      return;
    const Schedule schedule =
        make_schedule(family.name, settings_.ranks, settings_.microbatches,
                      family.stages_per_rank_varies ? std::optional(stages_per_rank) : std::nullopt);
    if (schedule.placement != settings_.placement) return;
    const PassOrder order = order_of(schedule);
    if (is_legal(order)) {
      const double span = consider(order).longest;
      if (best_generator_.empty() || span <= generator_span_) {
        best_generator_ = family.name;
        generator_span_ = span;
      }
    }
    for (const double patience : {1.0, 0.75, 0.5, 0.25, 0.0}) {
      if (at_bound() || spent() > 1.0 / 3) return;
      ListPolicy policy;
      policy.patience = patience;
      PassOrder placed = place_weights(problem_, order, policy);
      if (!placed.empty()) consider(std::move(placed));
    }
  }

  void try_policies() {
    // One after the other until a third of the budget is gone: on large pipelines the first few must do.
    // One policy keeps within any caps, and is played even where no time is left for it.
    for (const ListPolicy& policy : list_policies()) {
      if (!order_.empty() && (at_bound() || spent() > 1.0 / 3)) return;
      consider(play_list(problem_, policy));
    }
  }

  // Several times, from several starts: what one annealing misses the next may find.
  void anneal() {
    const std::vector<Start> starts = std::exchange(starts_, {});
    const double begin = spent();
    for (int leg = 0; leg < legs && begin < 1 && !at_bound(); ++leg) {
      const double from = begin + (1 - begin) * leg / legs;
      const double length = (1 - begin) / legs;
      Start start = starts[as_size(leg) % starts.size()];
      improve(problem_, evaluator_, start.order, start.score,
              {settings_.seed + static_cast<std::uint64_t>(leg), bound_ * (1 + tolerance), [&] {
                 evaluations_ += rounds_between_questions(problem_);
                 return (spent() - from) / length;
               }});
      if (start.score < score_) {
        score_ = start.score;
        order_ = std::move(start.order);
      }
    }
  }

  bool prove() {
    std::size_t passes = 0;
    for (const auto& row : order_) passes += row.size();
    if (passes > exact_passes) return false;
    // A beginning costs a small part of an evaluation, and two thirds of the budget are the annealing's.
    const bool counted = settings_.most_evaluations > 0;
    const std::int64_t most_nodes = counted ? nodes_an_evaluation * settings_.most_evaluations : exact_nodes;
    const auto out_of_time = [this, counted] { return !counted && spent() > 2.0 / 3; };
    for (;;) {
      PassOrder order;
      const SpanScore before = score_;
      switch (find_shorter(problem_, score_.longest * (1 - 1e-9), most_nodes, out_of_time, order)) {
        case ExactAnswer::Found:
          check_invariant(consider(std::move(order)) < before, "branch and bound found an order that is not shorter");
          break;
        case ExactAnswer::ThereIsNone:
          return true;
        case ExactAnswer::GaveUp:
          return false;
      }
    }
  }

  const SynthesisSettings& settings_;
  const Cost& cost_;
  const Clock& clock_;
  Milliseconds begun_;
  Milliseconds budget_;
  PipelineProblem problem_;
  Evaluator evaluator_;
  double bound_;
  PassOrder order_;
  SpanScore score_;
  std::vector<Start> starts_;  // best first
  std::string best_generator_;
  double generator_span_ = 0;
  std::int64_t evaluations_ = 0;
};

// By how much each rank's peak is above its cap; true if any is.
bool find_excess(const Timeline& timeline, const Cost& cost, std::vector<Bytes>& for_messages) {
  bool any = false;
  for (std::size_t rank = 0; rank < cost.memory_caps.size(); ++rank) {
    const Bytes excess = peak_bytes(timeline, RankId{static_cast<std::int32_t>(rank)}) - cost.memory_caps[rank];
    if (excess.count <= 0) continue;
    for_messages[rank] += excess;
    any = true;
  }
  return any;
}

}  // namespace

void check_synthesis_sizes(int ranks, int stages_per_rank, int microbatches) {
  check_positive(ranks, microbatches);
  if (stages_per_rank < 1)
    throw bad_input(counted(stages_per_rank, "stage") + " a rank", "at least 1", "raise the number");
  check_sizes(std::int64_t{ranks} * stages_per_rank, stages_per_rank, microbatches);
}

Synthesis synthesise(const SynthesisSettings& settings, const Cost& cost, const Clock& clock) {
  const Milliseconds begun = clock.now();
  check(settings, cost);
  check_shares(settings, cost);
  // How many bytes of messages wait at the peak is known only when a schedule has been played: where they do not fit
  // beside the activations, these get so much less room.
  constexpr int most_tries = 5;
  std::vector<Bytes> for_messages(cost.memory_caps.size());
  for (int attempt = 0;; ++attempt) {
    PipelineProblem problem = make_problem(settings.placement, settings.ranks, settings.microbatches, cost,
                                           count_caps(settings), byte_caps(settings, cost, for_messages));
    check_caps(problem, cost);
    const Milliseconds now = attempt == 0 ? begun : clock.now();
    const Milliseconds left = settings.budget - (now - begun);
    // Where another attempt may follow it gets half of what is left.
    const Milliseconds budget = cost.memory_caps.empty() ? left : Milliseconds{left.count / 2};
    Synthesis synthesis = Synthesiser(settings, cost, clock, now, budget, std::move(problem)).run();
    if (!find_excess(synthesis.timeline, cost, for_messages)) return synthesis;
    if (attempt == most_tries)
      throw bad_input("memory_cap_bytes that leave no room for messages beside the activations",
                      "room for the boundaries that wait to be sent or used", "raise memory_cap_bytes");
  }
}

}  // namespace penstock
