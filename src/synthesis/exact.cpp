#include "synthesis/exact.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <unordered_map>

#include "penstock/base/index.h"

namespace penstock {
namespace {

constexpr double never = -1;

// A beginning of an order: how far each pass has come and when.
struct State {
  std::vector<std::int32_t> done;     // by code
  std::vector<double> clock;          // by rank
  std::vector<HeldActivations> held;  // by rank
  std::vector<double> inputs;         // by stage and microbatch
  std::vector<double> gradients;      // by stage and microbatch
  std::vector<double> link_free;      // by link
};

struct Branch {
  std::int32_t rank;
  PassCode code;
  double start;
  double end;
};

// A state and what is tried from it. There is one of each depth, whose memory the next visit there takes over.
struct Visit {
  State state;
  std::vector<Branch> branches;
};

class BranchAndBound {
 public:
  BranchAndBound(const PipelineProblem& problem, double span, std::int64_t most_nodes,
                 const std::function<bool()>& out_of_time)
      : problem_(problem),
        span_(span),
        nodes_left_(most_nodes),
        out_of_time_(out_of_time),
        several_stages_(std::any_of(problem.stages_of.begin(), problem.stages_of.end(),
                                    [](const auto& stages) { return stages.size() > 1; })) {}

  ExactAnswer run(PassOrder& order) {
    order_.assign(as_size(problem_.ranks), {});
    visits_.resize(problem_.duration.size() * as_size(problem_.microbatches) + 1);
    visits_.front().state = start();
    forward_.resize(as_size(problem_.stages));
    input_.resize(forward_.size());
    const bool found = visit(0);
    if (found) order = order_;
    if (found) return ExactAnswer::Found;
    return nodes_left_ <= 0 ? ExactAnswer::GaveUp : ExactAnswer::ThereIsNone;
  }

 private:
  [[nodiscard]] State start() const {
    State state;
    const std::size_t slots = as_size(problem_.stages) * as_size(problem_.microbatches);
    state.done.assign(problem_.duration.size(), 0);
    state.clock.assign(as_size(problem_.ranks), 0);
    state.held.resize(state.clock.size());
    state.inputs.assign(slots, never);
    state.gradients.assign(slots, never);
    state.link_free.assign(as_size(problem_.links), 0);
    return state;
  }

  [[nodiscard]] double duration(std::int32_t stage, Pass pass) const {
    return entry(problem_.duration, code_of(stage, pass));
  }
  [[nodiscard]] static std::int32_t done(const State& state, std::int32_t stage, Pass pass) {
    return entry(state.done, code_of(stage, pass));
  }

  [[nodiscard]] bool has_work(const State& state, std::int32_t rank) const {
    const auto& stages = entry(problem_.stages_of, rank);
    return std::any_of(stages.begin(), stages.end(), [&](std::int32_t stage) {
      return done(state, stage, Pass::WeightBackward) < problem_.microbatches;
    });
  }

  [[nodiscard]] double ready(const State& state, PassCode code) const {
    const std::int32_t stage = stage_of(code);
    const std::int32_t microbatch = entry(state.done, code);
    if (microbatch == problem_.microbatches) return never;
    switch (pass_of(code)) {
      case Pass::Forward:
        return stage == 0 ? 0 : state.inputs[problem_.slot(stage, microbatch)];
      case Pass::InputBackward:
        if (microbatch >= done(state, stage, Pass::Forward)) return never;
        return stage + 1 == problem_.stages ? 0 : state.gradients[problem_.slot(stage, microbatch)];
      case Pass::WeightBackward:
        return microbatch < done(state, stage, Pass::InputBackward) ? 0 : never;
      case Pass::Backward:
        break;
    }
    return never;
  }

  void add_branches(const State& state, std::int32_t rank, std::vector<Branch>& found) const {
    const auto index = as_index(rank);
    for (const std::int32_t stage : problem_.stages_of[index]) {
      for (const Pass pass : {Pass::Forward, Pass::InputBackward, Pass::WeightBackward}) {
        const PassCode code = code_of(stage, pass);
        const double time = ready(state, code);
        if (time == never) continue;
        if (pass == Pass::Forward) {
          HeldActivations held = state.held[index];
          held.begin_forward(problem_, stage);
          if (!held.fits(problem_, index)) continue;
        }
        const double start = std::max(time, state.clock[index]);
        found.push_back({rank, code, start, start + duration(stage, pass)});
      }
    }
  }

  void perform(State& state, const Branch& branch) const {
    const auto index = as_index(branch.rank);
    const std::int32_t stage = stage_of(branch.code);
    const std::int32_t microbatch = entry(state.done, branch.code)++;
    state.clock[index] = branch.end;
    // In the order of their starts, what comes later starts no earlier: not even where a rank has been free for long.
    if (several_stages_)
      for (std::int32_t other = 0; other < problem_.ranks; ++other)
        if (has_work(state, other)) entry(state.clock, other) = std::max(entry(state.clock, other), branch.start);
    const Pass pass = pass_of(branch.code);
    if (pass == Pass::Forward)
      state.held[index].begin_forward(problem_, stage);
    else
      state.held[index].end(problem_, branch.code);
    const std::int32_t to = stage + (pass == Pass::Forward ? 1 : -1);
    if (pass == Pass::WeightBackward || to < 0 || to == problem_.stages) return;
    const Hop& hop = entry(pass == Pass::Forward ? problem_.down : problem_.up, stage);
    double time = branch.end;
    if (hop.link >= 0) {
      double& free = entry(state.link_free, hop.link);
      free = std::max(free, time) + hop.transfer;
      time = free + hop.latency;
    }
    (pass == Pass::Forward ? state.inputs : state.gradients)[problem_.slot(to, microbatch)] = time;
  }

  // No order that begins so has a shorter span than this.
  [[nodiscard]] double bound(const State& state) {
    std::vector<double>& forward = forward_;
    std::vector<double>& input = input_;
    double longest = 0;
    for (std::int32_t stage = 0; stage < problem_.stages; ++stage) {
      const auto index = as_index(stage);
      forward[index] = entry(state.clock, problem_.rank_of[index]);
      const std::int32_t next = done(state, stage, Pass::Forward);
      if (next == problem_.microbatches || stage == 0) continue;
      const double known = state.inputs[problem_.slot(stage, next)];
      const Hop& hop = problem_.down[index - 1];
      const std::int32_t behind = next - done(state, stage - 1, Pass::Forward) + 1;
      forward[index] =
          std::max(forward[index], known != never ? known
                                                  : forward[index - 1] + behind * duration(stage - 1, Pass::Forward) +
                                                        hop.transfer + hop.latency);
    }
    for (std::int32_t stage = problem_.stages; stage-- > 0;) {
      const auto index = as_index(stage);
      const auto rank = as_index(problem_.rank_of[index]);
      input[index] = state.clock[rank];
      const std::int32_t next = done(state, stage, Pass::InputBackward);
      if (next == problem_.microbatches) continue;
      if (next >= done(state, stage, Pass::Forward))
        input[index] = std::max(input[index], forward[index] + duration(stage, Pass::Forward));
      if (stage + 1 < problem_.stages) {
        const double known = state.gradients[problem_.slot(stage, next)];
        const Hop& hop = problem_.up[index + 1];
        const std::int32_t behind = next - done(state, stage + 1, Pass::InputBackward) + 1;
        input[index] = std::max(input[index], known != never ? known
                                                             : input[index + 1] +
                                                                   behind * duration(stage + 1, Pass::InputBackward) +
                                                                   hop.transfer + hop.latency);
      }
      longest = std::max(longest, last_input_bound(state, stage, forward[index], input[index]));
    }
    for (std::size_t rank = 0; rank < state.clock.size(); ++rank)
      longest = std::max(longest, rank_bound(state, rank, forward, input));
    return longest;
  }

  // A rank has all its remaining passes before it, and none of them begins before the first that can.
  [[nodiscard]] double rank_bound(const State& state, std::size_t rank, const std::vector<double>& forward,
                                  const std::vector<double>& input) const {
    double work = 0;
    double first = std::numeric_limits<double>::infinity();
    for (const std::int32_t stage : problem_.stages_of[rank]) {
      const auto index = as_index(stage);
      for (const Pass pass : {Pass::Forward, Pass::InputBackward, Pass::WeightBackward})
        work += (problem_.microbatches - done(state, stage, pass)) * duration(stage, pass);
      if (done(state, stage, Pass::Forward) < problem_.microbatches) first = std::min(first, forward[index]);
      if (done(state, stage, Pass::InputBackward) < problem_.microbatches) first = std::min(first, input[index]);
      if (done(state, stage, Pass::WeightBackward) < done(state, stage, Pass::InputBackward))
        first = std::min(first, state.clock[rank]);
    }
    return (work > 0 ? first + work : state.clock[rank]) - problem_.first_start[rank];
  }

  // All of a stage's forwards and input gradients, and those of the later stages of its rank, come before its last
  // input gradient, and that before those of all earlier stages.
  [[nodiscard]] double last_input_bound(const State& state, std::int32_t stage, double forward, double input) const {
    const std::int32_t left = problem_.microbatches - done(state, stage, Pass::InputBackward);
    if (left == 0) return 0;
    const auto rank = as_index(entry(problem_.rank_of, stage));
    double work = 0;
    for (const std::int32_t other : problem_.stages_of[rank]) {
      if (other < stage) continue;
      for (const Pass pass : {Pass::Forward, Pass::InputBackward})
        work += (problem_.microbatches - done(state, other, pass)) * duration(other, pass);
    }
    double time = std::max(state.clock[rank] + work, input + left * duration(stage, Pass::InputBackward));
    const std::int32_t forwards = problem_.microbatches - done(state, stage, Pass::Forward);
    if (forwards > 0)
      time = std::max(time, forward + forwards * duration(stage, Pass::Forward) + duration(stage, Pass::InputBackward));
    double longest = 0;
    for (std::int32_t at = stage;; --at) {
      const auto index = as_index(at);
      longest = std::max(
          longest, time + duration(at, Pass::WeightBackward) - entry(problem_.first_start, problem_.rank_of[index]));
      if (at == 0) break;
      time += problem_.up[index].transfer + problem_.up[index].latency + duration(at - 1, Pass::InputBackward);
    }
    return longest;
  }

  // What a state that has the same passes done is compared by.
  void take_times(const State& state) {
    times_.assign(state.clock.begin(), state.clock.end());
    times_.insert(times_.end(), state.link_free.begin(), state.link_free.end());
    for (std::int32_t stage = 0; stage < problem_.stages; ++stage) {
      for (std::int32_t m = done(state, stage, Pass::Forward); m < problem_.microbatches; ++m)
        times_.push_back(state.inputs[problem_.slot(stage, m)]);
      for (std::int32_t m = done(state, stage, Pass::InputBackward); m < problem_.microbatches; ++m)
        times_.push_back(state.gradients[problem_.slot(stage, m)]);
    }
  }

  // Whether a state with the same passes done has been visited that was nowhere later. The times of those that have
  // been, each as many, stand one behind the other.
  bool is_dominated(const State& state) {
    take_times(state);
    key_.assign(state.done.begin(), state.done.end());
    std::vector<double>& seen = seen_[key_];
    const auto size = static_cast<std::ptrdiff_t>(times_.size());
    for (auto other = seen.begin(); other != seen.end(); other += size)
      if (std::equal(other, other + size, times_.begin(), std::less_equal<>())) return true;
    auto kept = seen.begin();
    for (auto other = seen.begin(); other != seen.end(); other += size) {
      if (std::equal(times_.begin(), times_.end(), other, std::less_equal<>())) continue;
      kept = kept == other ? other + size : std::copy(other, other + size, kept);
    }
    seen.erase(kept, seen.end());
    seen.insert(seen.end(), times_.begin(), times_.end());
    return false;
  }

  bool visit(std::size_t depth) {
    const State& state = visits_[depth].state;
    if (--nodes_left_ <= 0) return false;
    if (nodes_left_ % 256 == 0 && out_of_time_()) nodes_left_ = 0;
    if (bound(state) >= span_) return false;
    if (std::all_of(state.done.begin(), state.done.end(),
                    [this](std::int32_t count) { return count == problem_.microbatches; }))
      return true;
    if (is_dominated(state)) return false;
    choose_branches(visits_[depth]);
    for (const Branch& branch : visits_[depth].branches) {
      State& next = visits_[depth + 1].state;
      next = state;
      perform(next, branch);
      auto& row = entry(order_, branch.rank);
      row.push_back(branch.code);
      if (visit(depth + 1)) return true;
      row.pop_back();
    }
    return false;
  }

  // With one stage a rank: of all passes that can begin, the one that ends first, and the others of its rank that can
  // begin before that; putting that pass first would make nothing later. With several stages a forward may take the
  // room that another stage's will want, and a message hold up another stage's: there, every pass that begins no
  // earlier than the last one did.
  void choose_branches(Visit& at) const {
    std::vector<Branch>& found = at.branches;
    found.clear();
    for (std::int32_t rank = 0; rank < problem_.ranks; ++rank) add_branches(at.state, rank, found);
    if (!several_stages_ && !found.empty()) {
      const Branch first =
          *std::min_element(found.begin(), found.end(), [](const Branch& a, const Branch& b) { return a.end < b.end; });
      std::erase_if(found, [&](const Branch& branch) {
        return branch.rank != first.rank || (branch.start >= first.end && branch.code != first.code);
      });
    }
    std::sort(found.begin(), found.end(), [](const Branch& a, const Branch& b) { return a.start < b.start; });
  }

  const PipelineProblem& problem_;
  double span_;
  std::int64_t nodes_left_;
  const std::function<bool()>& out_of_time_;
  bool several_stages_;
  PassOrder order_;
  std::vector<Visit> visits_;                                  // by depth
  std::vector<double> forward_;                                // of `bound`: earliest start of each stage's next F
  std::vector<double> input_;                                  // and of its next I
  std::vector<double> times_;                                  // of `is_dominated`
  std::string key_;                                            // of `is_dominated`: passes done
  std::unordered_map<std::string, std::vector<double>> seen_;  // times by passes done
};

}  // namespace

ExactAnswer find_shorter(const PipelineProblem& problem, double span, std::int64_t most_nodes,
                         const std::function<bool()>& out_of_time, PassOrder& order) {
  return BranchAndBound(problem, span, most_nodes, out_of_time).run(order);
}

}  // namespace penstock
