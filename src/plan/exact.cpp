#include "plan/exact.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>

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
  PassCode code;
  double start;
  double end;
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
    order_.assign(static_cast<std::size_t>(problem_.ranks), {});
    const bool found = visit(start());
    if (found) order = order_;
    if (found) return ExactAnswer::Found;
    return nodes_left_ <= 0 ? ExactAnswer::GaveUp : ExactAnswer::ThereIsNone;
  }

 private:
  [[nodiscard]] State start() const {
    State state;
    const std::size_t slots =
        static_cast<std::size_t>(problem_.stages) * static_cast<std::size_t>(problem_.microbatches);
    state.done.assign(problem_.duration.size(), 0);
    state.clock.assign(static_cast<std::size_t>(problem_.ranks), 0);
    state.held.resize(state.clock.size());
    state.inputs.assign(slots, never);
    state.gradients.assign(slots, never);
    state.link_free.assign(static_cast<std::size_t>(problem_.links), 0);
    return state;
  }

  [[nodiscard]] double duration(std::int32_t stage, Pass pass) const {
    return problem_.duration[static_cast<std::size_t>(code_of(stage, pass))];
  }
  [[nodiscard]] static std::int32_t done(const State& state, std::int32_t stage, Pass pass) {
    return state.done[static_cast<std::size_t>(code_of(stage, pass))];
  }

  [[nodiscard]] bool has_work(const State& state, std::int32_t rank) const {
    const auto& stages = problem_.stages_of[static_cast<std::size_t>(rank)];
    return std::any_of(stages.begin(), stages.end(),
                       [&](std::int32_t stage) { return done(state, stage, Pass::Weight) < problem_.microbatches; });
  }

  [[nodiscard]] double ready(const State& state, PassCode code) const {
    const std::int32_t stage = stage_of(code);
    const std::int32_t microbatch = state.done[static_cast<std::size_t>(code)];
    if (microbatch == problem_.microbatches) return never;
    switch (pass_of(code)) {
      case Pass::Forward:
        return stage == 0 ? 0 : state.inputs[problem_.slot(stage, microbatch)];
      case Pass::Input:
        if (microbatch >= done(state, stage, Pass::Forward)) return never;
        return stage + 1 == problem_.stages ? 0 : state.gradients[problem_.slot(stage, microbatch)];
      case Pass::Weight:
        return microbatch < done(state, stage, Pass::Input) ? 0 : never;
    }
    return never;
  }

  [[nodiscard]] std::vector<Branch> candidates(const State& state, std::int32_t rank) const {
    std::vector<Branch> found;
    const auto index = static_cast<std::size_t>(rank);
    for (const std::int32_t stage : problem_.stages_of[index]) {
      for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
        const PassCode code = code_of(stage, pass);
        const double time = ready(state, code);
        if (time == never) continue;
        if (pass == Pass::Forward) {
          HeldActivations held = state.held[index];
          held.begin(problem_, code);
          if (!held.fits(problem_, index)) continue;
        }
        const double start = std::max(time, state.clock[index]);
        found.push_back({code, start, start + duration(stage, pass)});
      }
    }
    return found;
  }

  void perform(State& state, std::int32_t rank, const Branch& candidate) const {
    const auto index = static_cast<std::size_t>(rank);
    const std::int32_t stage = stage_of(candidate.code);
    const std::int32_t microbatch = state.done[static_cast<std::size_t>(candidate.code)]++;
    state.clock[index] = candidate.end;
    // In the order of their starts, what comes later starts no earlier: not even where a rank has been free for long.
    if (several_stages_)
      for (std::int32_t other = 0; other < problem_.ranks; ++other)
        if (has_work(state, other))
          state.clock[static_cast<std::size_t>(other)] =
              std::max(state.clock[static_cast<std::size_t>(other)], candidate.start);
    const Pass pass = pass_of(candidate.code);
    if (pass == Pass::Forward)
      state.held[index].begin(problem_, candidate.code);
    else
      state.held[index].end(problem_, candidate.code);
    const std::int32_t to = stage + (pass == Pass::Forward ? 1 : -1);
    if (pass == Pass::Weight || to < 0 || to == problem_.stages) return;
    const Hop& hop = (pass == Pass::Forward ? problem_.down : problem_.up)[static_cast<std::size_t>(stage)];
    double time = candidate.end;
    if (hop.link >= 0) {
      double& free = state.link_free[static_cast<std::size_t>(hop.link)];
      free = std::max(free, time) + hop.transfer;
      time = free + hop.latency;
    }
    (pass == Pass::Forward ? state.inputs : state.gradients)[problem_.slot(to, microbatch)] = time;
  }

  // No order that begins so has a shorter span than this.
  [[nodiscard]] double bound(const State& state) const {
    const auto stages = static_cast<std::size_t>(problem_.stages);
    std::vector<double> forward(stages);  // earliest start of each stage's next F
    std::vector<double> input(stages);    // and of its next I
    double longest = 0;
    for (std::int32_t stage = 0; stage < problem_.stages; ++stage) {
      const auto index = static_cast<std::size_t>(stage);
      forward[index] = state.clock[static_cast<std::size_t>(problem_.rank_of[index])];
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
      const auto index = static_cast<std::size_t>(stage);
      const auto rank = static_cast<std::size_t>(problem_.rank_of[index]);
      input[index] = state.clock[rank];
      const std::int32_t next = done(state, stage, Pass::Input);
      if (next == problem_.microbatches) continue;
      if (next >= done(state, stage, Pass::Forward))
        input[index] = std::max(input[index], forward[index] + duration(stage, Pass::Forward));
      if (stage + 1 < problem_.stages) {
        const double known = state.gradients[problem_.slot(stage, next)];
        const Hop& hop = problem_.up[index + 1];
        const std::int32_t behind = next - done(state, stage + 1, Pass::Input) + 1;
        input[index] =
            std::max(input[index], known != never ? known
                                                  : input[index + 1] + behind * duration(stage + 1, Pass::Input) +
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
      const auto index = static_cast<std::size_t>(stage);
      for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
        work += (problem_.microbatches - done(state, stage, pass)) * duration(stage, pass);
      if (done(state, stage, Pass::Forward) < problem_.microbatches) first = std::min(first, forward[index]);
      if (done(state, stage, Pass::Input) < problem_.microbatches) first = std::min(first, input[index]);
      if (done(state, stage, Pass::Weight) < done(state, stage, Pass::Input))
        first = std::min(first, state.clock[rank]);
    }
    return (work > 0 ? first + work : state.clock[rank]) - problem_.first_start[rank];
  }

  // All of a stage's forwards and input gradients, and those of the later stages of its rank, come before its last
  // input gradient, and that before those of all earlier stages.
  [[nodiscard]] double last_input_bound(const State& state, std::int32_t stage, double forward, double input) const {
    const std::int32_t left = problem_.microbatches - done(state, stage, Pass::Input);
    if (left == 0) return 0;
    const auto rank = static_cast<std::size_t>(problem_.rank_of[static_cast<std::size_t>(stage)]);
    double work = 0;
    for (const std::int32_t other : problem_.stages_of[rank]) {
      if (other < stage) continue;
      for (const Pass pass : {Pass::Forward, Pass::Input})
        work += (problem_.microbatches - done(state, other, pass)) * duration(other, pass);
    }
    double time = std::max(state.clock[rank] + work, input + left * duration(stage, Pass::Input));
    const std::int32_t forwards = problem_.microbatches - done(state, stage, Pass::Forward);
    if (forwards > 0)
      time = std::max(time, forward + forwards * duration(stage, Pass::Forward) + duration(stage, Pass::Input));
    double longest = 0;
    for (std::int32_t at = stage;; --at) {
      const auto index = static_cast<std::size_t>(at);
      longest = std::max(longest, time + duration(at, Pass::Weight) -
                                      problem_.first_start[static_cast<std::size_t>(problem_.rank_of[index])]);
      if (at == 0) break;
      time += problem_.up[index].transfer + problem_.up[index].latency + duration(at - 1, Pass::Input);
    }
    return longest;
  }

  // Whether a state with the same passes done has been visited that was nowhere later.
  bool is_dominated(const State& state) {
    std::vector<double> times = state.clock;
    times.insert(times.end(), state.link_free.begin(), state.link_free.end());
    for (std::int32_t stage = 0; stage < problem_.stages; ++stage) {
      for (std::int32_t m = done(state, stage, Pass::Forward); m < problem_.microbatches; ++m)
        times.push_back(state.inputs[problem_.slot(stage, m)]);
      for (std::int32_t m = done(state, stage, Pass::Input); m < problem_.microbatches; ++m)
        times.push_back(state.gradients[problem_.slot(stage, m)]);
    }
    auto& seen = seen_[std::string(state.done.begin(), state.done.end())];
    for (const auto& other : seen)
      if (std::equal(other.begin(), other.end(), times.begin(), [](double a, double b) { return a <= b; })) return true;
    std::erase_if(seen, [&](const auto& other) {
      return std::equal(times.begin(), times.end(), other.begin(), [](double a, double b) { return a <= b; });
    });
    seen.push_back(std::move(times));
    return false;
  }

  bool visit(const State& state) {
    if (--nodes_left_ <= 0) return false;
    if (nodes_left_ % 256 == 0 && out_of_time_()) nodes_left_ = 0;
    if (bound(state) >= span_) return false;
    if (std::all_of(state.done.begin(), state.done.end(),
                    [this](std::int32_t count) { return count == problem_.microbatches; }))
      return true;
    if (is_dominated(state)) return false;
    for (const Choice& choice : choices(state)) {
      State next = state;
      perform(next, choice.rank, choice.candidate);
      auto& row = order_[static_cast<std::size_t>(choice.rank)];
      row.push_back(choice.candidate.code);
      if (visit(next)) return true;
      row.pop_back();
    }
    return false;
  }

  struct Choice {
    std::int32_t rank;
    Branch candidate;
  };

  // With one stage a rank: of all passes that can begin, the one that ends first, and the others of its rank that can
  // begin before that; putting that pass first would make nothing later. With several stages a forward may take the
  // room that another stage's will want, and a message hold up another stage's: there, every pass that begins no
  // earlier than the last one did.
  [[nodiscard]] std::vector<Choice> choices(const State& state) const {
    std::vector<Choice> found;
    for (std::int32_t rank = 0; rank < problem_.ranks; ++rank)
      for (const Branch& candidate : candidates(state, rank)) found.push_back({rank, candidate});
    if (!several_stages_ && !found.empty()) {
      const Choice first = *std::min_element(found.begin(), found.end(), [](const Choice& a, const Choice& b) {
        return a.candidate.end < b.candidate.end;
      });
      std::erase_if(found, [&](const Choice& choice) {
        return choice.rank != first.rank ||
               (choice.candidate.start >= first.candidate.end && choice.candidate.code != first.candidate.code);
      });
    }
    std::sort(found.begin(), found.end(),
              [](const Choice& a, const Choice& b) { return a.candidate.start < b.candidate.start; });
    return found;
  }

  const PipelineProblem& problem_;
  double span_;
  std::int64_t nodes_left_;
  const std::function<bool()>& out_of_time_;
  bool several_stages_;
  PassOrder order_;
  std::map<std::string, std::vector<std::vector<double>>> seen_;
};

}  // namespace

ExactAnswer find_shorter(const PipelineProblem& problem, double span, std::int64_t most_nodes,
                         const std::function<bool()>& out_of_time, PassOrder& order) {
  return BranchAndBound(problem, span, most_nodes, out_of_time).run(order);
}

}  // namespace penstock
