#include "synthesis/evaluator.h"

#include <algorithm>

#include "penstock/base/index.h"

namespace penstock {

Evaluator::Evaluator(const PipelineProblem& problem)
    : problem_(problem),
      done_(problem.duration.size()),
      inputs_(as_size(problem.stages) * as_size(problem.microbatches)),
      gradients_(inputs_.size()),
      links_(as_size(problem.links)),
      next_(as_size(problem.ranks)),
      clock_(next_.size()),
      is_runnable_(next_.size()),
      started_(next_.size()) {}

SpanScore Evaluator::evaluate(const PassOrder& order) {
  std::fill(done_.begin(), done_.end(), 0);
  std::fill(inputs_.begin(), inputs_.end(), Arrival{});
  std::fill(gradients_.begin(), gradients_.end(), Arrival{});
  std::fill(links_.begin(), links_.end(), Link{});
  std::fill(next_.begin(), next_.end(), 0);
  std::fill(clock_.begin(), clock_.end(), 0);
  std::fill(is_runnable_.begin(), is_runnable_.end(), 1);
  runnable_.clear();
  for (std::int32_t rank = problem_.ranks; rank-- > 0;) {
    runnable_.push_back(rank);
    entry(started_, rank).resize(entry(order, rank).size());
  }
  while (!runnable_.empty()) {
    const std::int32_t rank = runnable_.back();
    runnable_.pop_back();
    entry(is_runnable_, rank) = 0;
    run_rank(order, rank);
  }
  SpanScore score{0, 0};
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    if (next_[rank] != static_cast<std::int32_t>(order[rank].size())) return {};
    const double span = clock_[rank] - problem_.first_start[rank];
    if (span > score.longest) {
      score.longest = span;
      worst_rank_ = static_cast<std::int32_t>(rank);
    }
    score.mean += span;
  }
  score.mean /= static_cast<double>(order.size());
  return score;
}

const Evaluator::Arrival* Evaluator::input_of(PassCode code, std::int32_t microbatch) const {
  const std::int32_t stage = stage_of(code);
  switch (pass_of(code)) {
    case Pass::Forward:
      return stage > 0 ? &inputs_[problem_.slot(stage, microbatch)] : nullptr;
    case Pass::InputBackward:
      return stage + 1 < problem_.stages ? &gradients_[problem_.slot(stage, microbatch)] : nullptr;
    case Pass::WeightBackward:
    case Pass::Backward:
      return nullptr;
  }
  return nullptr;
}

void Evaluator::run_rank(const PassOrder& order, std::int32_t rank) {
  const auto index = as_index(rank);
  const auto& row = order[index];
  auto& started = started_[index];
  double clock = clock_[index];
  std::int32_t position = next_[index];
  for (; position < static_cast<std::int32_t>(row.size()); ++position) {
    const PassCode code = entry(row, position);
    std::int32_t& count = entry(done_, code);
    const Arrival* input = input_of(code, count);
    Started& pass = entry(started, position);
    pass.cause = {-1, -1};
    if (input != nullptr) {
      if (input->time == never) break;
      if (input->time > clock) {
        clock = input->time;
        pass.cause = input->cause;
      }
    }
    clock += entry(problem_.duration, code);
    pass.end = clock;
    deliver({rank, position}, code, count++, clock);
  }
  next_[index] = position;
  clock_[index] = clock;
}

void Evaluator::deliver(Place from, PassCode code, std::int32_t microbatch, double time) {
  const Pass pass = pass_of(code);
  if (pass == Pass::WeightBackward) return;
  const std::int32_t stage = stage_of(code);
  const bool forward = pass == Pass::Forward;
  const std::int32_t to = stage + (forward ? 1 : -1);
  if (to < 0 || to == problem_.stages) return;
  const Hop& hop = entry(forward ? problem_.down : problem_.up, stage);
  Arrival& arrival = (forward ? inputs_ : gradients_)[problem_.slot(to, microbatch)];
  if (hop.link < 0) {
    arrival = {time, from};
    return;  // the rank goes on by itself
  }
  Link& link = entry(links_, hop.link);
  if (link.free_at <= time) link = {time, from};
  link.free_at += hop.transfer;
  arrival = {link.free_at + hop.latency, link.cause};
  const auto peer = as_index(entry(problem_.rank_of, to));
  if (is_runnable_[peer] == 0) {
    is_runnable_[peer] = 1;
    runnable_.push_back(static_cast<std::int32_t>(peer));
  }
}

void Evaluator::critical_path(std::vector<Place>& path) const {
  path.clear();
  Place place{worst_rank_, static_cast<std::int32_t>(entry(started_, worst_rank_).size()) - 1};
  while (place.position >= 0) {
    path.push_back(place);
    const Place cause = entry(entry(started_, place.rank), place.position).cause;
    place = cause.rank >= 0 ? cause : Place{place.rank, place.position - 1};
  }
}

}  // namespace penstock
