#include "synthesis/list_scheduling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

namespace penstock {
namespace {

constexpr double unset = -1;

struct Choice {
  PassCode code = -1;
  double start = 0;
  double urgency = 0;
  int preference = 0;
};

// Which rank's choice is the most urgent, and of equals the first rank's: a tournament, in which a new choice costs the
// logarithm of the number of ranks.
class Choices {
 public:
  explicit Choices(std::size_t ranks) : choices_(ranks), winners_(2 * ranks) {
    for (std::size_t rank = 0; rank < ranks; ++rank) winners_[ranks + rank] = rank;
    for (std::size_t node = ranks; node-- > 1;) play(node);
  }

  [[nodiscard]] const Choice& of(std::size_t rank) const { return choices_[rank]; }

  void set(std::size_t rank, const Choice& choice) {
    choices_[rank] = choice;
    for (std::size_t node = (choices_.size() + rank) / 2; node > 0; node /= 2) play(node);
  }

  // The rank whose turn it is; none where no rank can go on.
  [[nodiscard]] std::optional<std::int32_t> next() const {
    const std::size_t rank = winners_[1];
    return choices_[rank].code < 0 ? std::nullopt : std::optional(static_cast<std::int32_t>(rank));
  }

 private:
  // Node n is between nodes 2n and 2n + 1; the ranks are the leaves.
  void play(std::size_t node) {
    const std::size_t a = winners_[2 * node];
    const std::size_t b = winners_[2 * node + 1];
    winners_[node] = is_before(a, b) ? a : b;
  }

  [[nodiscard]] bool is_before(std::size_t a, std::size_t b) const {
    if ((choices_[a].code < 0) != (choices_[b].code < 0)) return choices_[b].code < 0;
    if (choices_[a].urgency != choices_[b].urgency) return choices_[a].urgency < choices_[b].urgency;
    return a < b;
  }

  std::vector<Choice> choices_;
  std::vector<std::size_t> winners_;  // by node; with one rank it is the leaf and the root
};

class ListPlayer {
 public:
  // With `fixed`, forwards and input gradients keep its order.
  ListPlayer(const PipelineProblem& problem, const ListPolicy& policy, const PassOrder* fixed = nullptr)
      : problem_(problem),
        policy_(policy),
        done_(problem.duration.size(), 0),
        inputs_(as_size(problem.stages) * as_size(problem.microbatches), unset),
        gradients_(inputs_.size(), unset),
        link_free_(as_size(problem.links), 0),
        order_(as_size(problem.ranks)),
        clock_(order_.size(), 0),
        held_(order_.size()),
        choices_(order_.size()),
        fixed_(fixed),
        next_fixed_(order_.size(), 0) {
    find_reserves();
  }

  PassOrder play() {
    if (fixed_ != nullptr)
      for (std::size_t rank = 0; rank < next_fixed_.size(); ++rank) skip_fixed_weights(rank);
    for (std::int32_t rank = 0; rank < problem_.ranks; ++rank) choose(rank);
    while (const auto rank = choices_.next()) commit(*rank);
    return std::move(order_);
  }

 private:
  // A forward leaves room for one microbatch on each later stage of its rank: else forwards of the first stage alone
  // could fill the caps, and nothing would ever go on.
  void find_reserves() {
    reserved_.resize(problem_.activation.size());
    if (fixed_ != nullptr) return;
    for (const auto& stages : problem_.stages_of) {
      HeldActivations later;
      for (std::size_t place = stages.size(); place-- > 0;) {
        entry(reserved_, stages[place]) = later;
        later.begin_forward(problem_, stages[place]);
      }
    }
  }

  [[nodiscard]] std::int32_t done(std::int32_t stage, Pass pass) const { return entry(done_, code_of(stage, pass)); }
  [[nodiscard]] double duration(std::int32_t stage, Pass pass) const {
    return entry(problem_.duration, code_of(stage, pass));
  }

  [[nodiscard]] bool has_room(std::size_t rank, std::int32_t stage) const {
    HeldActivations held = held_[rank];
    const HeldActivations& reserved = entry(reserved_, stage);
    held.count += reserved.count;
    held.bytes += reserved.bytes;
    held.begin_forward(problem_, stage);
    return held.fits(problem_, rank);
  }

  // Whether the fixed order, where there is one, has this pass next but for weight gradients.
  [[nodiscard]] bool is_its_turn(std::size_t rank, PassCode code) const {
    if (fixed_ == nullptr) return true;
    const std::size_t next = next_fixed_[rank];
    return next < (*fixed_)[rank].size() && (*fixed_)[rank][next] == code;
  }

  void skip_fixed_weights(std::size_t rank) {
    const auto& row = (*fixed_)[rank];
    while (next_fixed_[rank] < row.size() && pass_of(row[next_fixed_[rank]]) == Pass::WeightBackward)
      ++next_fixed_[rank];
  }

  [[nodiscard]] bool in_flight_limit(std::int32_t stage) const {
    if (policy_.flight <= 0) return true;
    const double per_rank = static_cast<double>(problem_.stages) / problem_.ranks;
    const double limit = std::max(1.0, std::ceil(policy_.flight * (problem_.stages - stage) / per_rank));
    return done(stage, Pass::Forward) - done(stage, Pass::InputBackward) < limit;
  }

  void offer(Choice& best, double clock, PassCode code, double ready, double bias, int preference) const {
    const double start = std::max(clock, ready);
    const double urgency = std::max(clock, ready - bias);
    if (best.code < 0 || urgency < best.urgency || (urgency == best.urgency && preference > best.preference))
      best = {code, start, urgency, preference};
  }

  void choose(std::int32_t rank) {
    const auto index = as_index(rank);
    const double clock = clock_[index];
    Choice best;
    double blocked_forward = unset;
    std::int32_t weight_stage = -1;
    int place = 0;
    int waiting = 0;
    bool has_forwards = false;
    for (const std::int32_t stage : problem_.stages_of[index]) {
      const int preference = policy_.later_stage_first ? place : -place;
      ++place;
      const std::int32_t forward = done(stage, Pass::Forward);
      const std::int32_t input = done(stage, Pass::InputBackward);
      waiting += input - done(stage, Pass::WeightBackward);
      has_forwards = has_forwards || forward < problem_.microbatches;
      if (forward < problem_.microbatches) {
        const double ready = stage == 0 ? 0 : inputs_[problem_.slot(stage, forward)];
        if (ready != unset && in_flight_limit(stage) && is_its_turn(index, code_of(stage, Pass::Forward))) {
          if (has_room(index, stage))
            offer(best, clock, code_of(stage, Pass::Forward), ready, 0,
                  preference + (policy_.forward_first ? 1000 : 0));
          else if (blocked_forward == unset || ready < blocked_forward)
            blocked_forward = ready;
        }
      }
      if (input < forward && is_its_turn(index, code_of(stage, Pass::InputBackward))) {
        const double ready = stage + 1 == problem_.stages ? 0 : gradients_[problem_.slot(stage, input)];
        if (ready != unset)
          offer(best, clock, code_of(stage, Pass::InputBackward), ready,
                policy_.backward_bias * duration(stage, Pass::Forward),
                preference + (policy_.forward_first ? 0 : 1000));
      }
      // If several stages have weight gradients to do, those of the stage that holds most microbatches.
      if (done(stage, Pass::WeightBackward) < input &&
          (weight_stage < 0 || input - done(stage, Pass::WeightBackward) >
                                   done(weight_stage, Pass::InputBackward) - done(weight_stage, Pass::WeightBackward)))
        weight_stage = stage;
    }
    if (weight_stage >= 0) {
      const double time = duration(weight_stage, Pass::WeightBackward);
      double urgency = clock + policy_.patience * time;
      if (waiting > policy_.waiting_weights && has_forwards) urgency = -1;
      if (blocked_forward != unset) urgency = std::min(urgency, std::max(clock, blocked_forward - time));
      if (best.code < 0 || urgency < best.urgency)
        best = {code_of(weight_stage, Pass::WeightBackward), clock, urgency, -1};
    }
    choices_.set(index, best);
  }

  void commit(std::int32_t rank) {
    const auto index = as_index(rank);
    const Choice choice = choices_.of(index);
    const std::int32_t stage = stage_of(choice.code);
    const Pass pass = pass_of(choice.code);
    order_[index].push_back(choice.code);
    if (fixed_ != nullptr && pass != Pass::WeightBackward) {
      ++next_fixed_[index];
      skip_fixed_weights(index);
    }
    const std::int32_t microbatch = entry(done_, choice.code)++;
    clock_[index] = choice.start + entry(problem_.duration, choice.code);
    if (pass == Pass::Forward)
      held_[index].begin_forward(problem_, stage);
    else
      held_[index].end(problem_, choice.code);
    const std::int32_t to = stage + (pass == Pass::Forward ? 1 : -1);
    if (pass != Pass::WeightBackward && to >= 0 && to < problem_.stages) deliver(stage, to, microbatch, clock_[index]);
    choose(rank);
  }

  void deliver(std::int32_t from, std::int32_t to, std::int32_t microbatch, double time) {
    const bool forward = to > from;
    const Hop& hop = entry(forward ? problem_.down : problem_.up, from);
    if (hop.link >= 0) {
      double& free = entry(link_free_, hop.link);
      free = std::max(free, time) + hop.transfer;
      time = free + hop.latency;
    }
    (forward ? inputs_ : gradients_)[problem_.slot(to, microbatch)] = time;
    if (hop.link >= 0) choose(entry(problem_.rank_of, to));
  }

  const PipelineProblem& problem_;
  const ListPolicy& policy_;
  std::vector<std::int32_t> done_;
  std::vector<double> inputs_;
  std::vector<double> gradients_;
  std::vector<double> link_free_;
  PassOrder order_;
  std::vector<double> clock_;
  std::vector<HeldActivations> held_;
  Choices choices_;
  const PassOrder* fixed_;
  std::vector<std::size_t> next_fixed_;    // by rank, the position in its fixed order
  std::vector<HeldActivations> reserved_;  // by stage
};

}  // namespace

namespace {

bool is_complete(const PipelineProblem& problem, const PassOrder& order) {
  for (std::size_t rank = 0; rank < order.size(); ++rank)
    if (order[rank].size() != problem.stages_of[rank].size() * as_size(pass_kinds * problem.microbatches)) return false;
  return true;
}

}  // namespace

PassOrder play_list(const PipelineProblem& problem, const ListPolicy& policy) {
  PassOrder order = ListPlayer(problem, policy).play();
  check_invariant(is_complete(problem, order), "list scheduling left passes undone");
  return order;
}

PassOrder place_weights(const PipelineProblem& problem, const PassOrder& order, const ListPolicy& policy) {
  PassOrder placed = ListPlayer(problem, policy, &order).play();
  if (!is_complete(problem, placed)) placed.clear();
  return placed;
}

std::vector<ListPolicy> list_policies() {
  constexpr int any = std::numeric_limits<int>::max();
  std::vector<ListPolicy> policies;
  for (const double flight : {0.0, 1.0, 1.25, 1.5, 2.0})
    for (const double patience : {1.0, 0.5, 0.0})
      for (const double bias : {0.0, 0.5, 1.0})
        for (const bool later : {true, false})
          for (const int waiting : {any, 0, 1, 2})
            for (const bool forward : {false, true})
              policies.push_back({patience, bias, flight, later, waiting, forward});
  return policies;
}

}  // namespace penstock
