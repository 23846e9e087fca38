#include "synthesis/pipeline_problem.h"

#include <array>
#include <map>
#include <utility>

#include "penstock/base/index.h"

namespace penstock {
namespace {

// Numbers the ordered pairs of ranks that neighbouring stages use.
class Links {
 public:
  explicit Links(const Cost& cost) : cost_(cost) {}

  Hop hop(std::int32_t from, std::int32_t to, Bytes boundary) {
    if (from == to) return {};
    const auto number = numbers_.try_emplace({from, to}, static_cast<std::int32_t>(numbers_.size())).first->second;
    const LinkCost& link = link_between(cost_, RankId{from}, RankId{to});
    return {number, static_cast<double>(boundary.count) / link.bytes_per_millisecond, link.latency.count};
  }

  [[nodiscard]] std::int32_t count() const { return static_cast<std::int32_t>(numbers_.size()); }

 private:
  const Cost& cost_;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> numbers_;
};

void find_first_starts(PipelineProblem& problem) {
  std::vector<bool> seen(as_size(problem.ranks), false);
  problem.first_start.assign(as_size(problem.ranks), 0);
  double time = 0;
  for (std::int32_t stage = 0; stage < problem.stages; ++stage) {
    const auto index = as_index(stage);
    const auto rank = as_index(problem.rank_of[index]);
    if (!seen[rank]) problem.first_start[rank] = time;
    seen[rank] = true;
    time += entry(problem.duration, code_of(stage, Pass::Forward)) + problem.down[index].transfer +
            problem.down[index].latency;
  }
}

}  // namespace

PipelineProblem make_problem(const Placement& placement, int ranks, int microbatches, const Cost& cost,
                             std::vector<double> count_cap, std::vector<double> byte_cap) {
  PipelineProblem problem;
  problem.ranks = ranks;
  problem.stages = static_cast<std::int32_t>(placement.holders.size());
  problem.microbatches = microbatches;
  problem.count_cap = std::move(count_cap);
  problem.byte_cap = std::move(byte_cap);
  problem.stages_of.resize(as_size(ranks));
  problem.busy.assign(as_size(ranks), 0);
  for (std::int32_t stage = 0; stage < problem.stages; ++stage) {
    const std::int32_t rank = entry(placement.holders, stage).front().value;
    const StageCost& stage_cost = entry(cost.stages, stage);
    problem.rank_of.push_back(rank);
    entry(problem.stages_of, rank).push_back(stage);
    problem.activation.push_back(static_cast<double>(stage_cost.activation.count));
    problem.activation_for_weights.push_back(static_cast<double>(activation_for_weights(stage_cost).count));
    problem.weight_share.push_back(stage_cost.weight_activation_share);
    for (const Milliseconds time : {stage_cost.forward, stage_cost.input_backward, stage_cost.weight_backward}) {
      problem.duration.push_back(time.count);
      entry(problem.busy, rank) += time.count * microbatches;
    }
  }
  Links links(cost);
  for (std::int32_t stage = 0; stage < problem.stages; ++stage) {
    const auto index = as_index(stage);
    const std::int32_t rank = problem.rank_of[index];
    problem.down.push_back(
        stage + 1 < problem.stages ? links.hop(rank, problem.rank_of[index + 1], cost.stages[index].boundary) : Hop{});
    const auto gradient_of = [](const StageCost& before) {
      return before.gradient_returns ? before.boundary : Bytes{};
    };
    problem.up.push_back(stage > 0 ? links.hop(rank, problem.rank_of[index - 1], gradient_of(cost.stages[index - 1]))
                                   : Hop{});
  }
  problem.links = links.count();
  find_first_starts(problem);
  return problem;
}

bool is_row_legal(const PipelineProblem& problem, std::int32_t rank, const std::vector<PassCode>& row) {
  // One counter a code of this rank's few stages, in place of one for each of the pipeline's.
  thread_local std::vector<std::int32_t> done;  // NOLINT(misc-use-internal-linkage): it is the function's
  done.resize(problem.duration.size());
  for (const std::int32_t stage : entry(problem.stages_of, rank))
    for (const Pass pass : {Pass::Forward, Pass::InputBackward, Pass::WeightBackward})
      entry(done, code_of(stage, pass)) = 0;
  HeldActivations held;
  for (const PassCode code : row) {
    const auto index = as_index(code);
    const std::int32_t count = ++done[index];
    if (pass_of(code) == Pass::Forward) {
      held.begin_forward(problem, stage_of(code));
      if (!held.fits(problem, as_size(rank))) return false;
    } else {
      if (count > done[index - 1]) return false;
      held.end(problem, code);
    }
  }
  return true;
}

PassOrder order_of(const Schedule& schedule) {
  PassOrder order(schedule.actions.size());
  for (std::size_t rank = 0; rank < schedule.actions.size(); ++rank) {
    for (const Action& action : schedule.actions[rank]) {
      const std::int32_t stage = action.stage.value;
      if (action.kind == ActionKind::Forward) order[rank].push_back(code_of(stage, Pass::Forward));
      if (action.kind == ActionKind::Backward || action.kind == ActionKind::InputBackward)
        order[rank].push_back(code_of(stage, Pass::InputBackward));
      if (action.kind == ActionKind::Backward || action.kind == ActionKind::WeightBackward)
        order[rank].push_back(code_of(stage, Pass::WeightBackward));
    }
  }
  return order;
}

Schedule schedule_of(const PipelineProblem& problem, const Placement& placement, const PassOrder& order) {
  constexpr std::array kinds{ActionKind::Forward, ActionKind::InputBackward, ActionKind::WeightBackward};
  Schedule schedule;
  schedule.stages = problem.stages;
  schedule.microbatches = problem.microbatches;
  schedule.placement = placement;
  schedule.actions.resize(order.size());
  std::vector<std::int32_t> done(problem.duration.size(), 0);
  for (std::size_t rank = 0; rank < order.size(); ++rank)
    for (const PassCode code : order[rank])
      schedule.actions[rank].push_back({kinds.at(as_index(pass_of(code))), {stage_of(code)}, {entry(done, code)++}});
  return schedule;
}

}  // namespace penstock
