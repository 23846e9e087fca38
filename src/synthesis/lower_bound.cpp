#include "synthesis/lower_bound.h"

#include <algorithm>
#include <cmath>

#include "penstock/base/index.h"

namespace penstock {
namespace {

class Bound {
 public:
  explicit Bound(const PipelineProblem& problem) : problem_(problem), first_input_(first_input_starts()) {}

  [[nodiscard]] double operator()() const {
    double longest = 0;
    for (std::size_t rank = 0; rank < problem_.stages_of.size(); ++rank)
      longest = std::max(longest, problem_.busy[rank] + idle_before_first_input(rank));
    for (std::int32_t stage = 0; stage < problem_.stages; ++stage) longest = std::max(longest, way_back(stage));
    return longest;
  }

 private:
  [[nodiscard]] double duration(std::int32_t stage, Pass pass) const {
    return entry(problem_.duration, code_of(stage, pass));
  }
  [[nodiscard]] std::size_t rank_of(std::int32_t stage) const { return as_index(entry(problem_.rank_of, stage)); }

  // By stage: microbatch 0 on its way forth and back without a wait.
  [[nodiscard]] std::vector<double> first_input_starts() const {
    std::vector<double> starts(as_size(problem_.stages));
    double time = 0;
    for (std::int32_t stage = 0; stage < problem_.stages; ++stage) {
      const Hop& hop = entry(problem_.down, stage);
      time += duration(stage, Pass::Forward) + hop.transfer + hop.latency;
    }
    for (std::int32_t stage = problem_.stages; stage-- > 0;) {
      const Hop& hop = entry(problem_.up, stage);
      entry(starts, stage) = time;
      time += duration(stage, Pass::InputBackward) + hop.transfer + hop.latency;
    }
    return starts;
  }

  // The most activations of the rank's lightest stage that its caps hold.
  [[nodiscard]] double room(std::size_t rank) const {
    double smallest = no_cap;
    for (const std::int32_t stage : problem_.stages_of[rank])
      smallest = std::min(smallest, entry(problem_.activation, stage));
    const double by_bytes = smallest > 0 ? problem_.byte_cap[rank] / smallest : no_cap;
    return std::min(problem_.count_cap[rank], by_bytes);
  }

  // Until a rank's first input gradient has ended it can do nothing but forwards.
  [[nodiscard]] double idle_before_first_input(std::size_t rank) const {
    const auto& stages = problem_.stages_of[rank];
    double forwards = 0;
    double longest_forward = 0;
    double arrival = no_cap;
    for (const std::int32_t stage : stages) {
      forwards += duration(stage, Pass::Forward) * problem_.microbatches;
      longest_forward = std::max(longest_forward, duration(stage, Pass::Forward));
      arrival = std::min(arrival, entry(first_input_, stage));
    }
    const double filled = std::min(forwards, std::floor(room(rank) + 1e-6) * longest_forward);
    return std::max(0.0, arrival - problem_.first_start[rank] - filled);
  }

  // With one stage a rank: the weight gradients that must come before the last forward to make room for it.
  [[nodiscard]] double forced_weights(std::int32_t stage) const {
    const std::size_t rank = rank_of(stage);
    const double share = entry(problem_.weight_share, stage);
    if (problem_.stages_of[rank].size() != 1 || share <= 0 || room(rank) == no_cap) return 0;
    const double held = 1 + (problem_.microbatches - 1) * share;
    return std::max(0.0, std::ceil((held - room(rank)) / share - 1e-6)) * duration(stage, Pass::WeightBackward);
  }

  [[nodiscard]] double way_back(std::int32_t stage) const {
    const std::size_t rank = rank_of(stage);
    double time = problem_.first_start[rank] + idle_before_first_input(rank) + forced_weights(stage);
    for (const std::int32_t other : problem_.stages_of[rank])
      if (other >= stage)
        time += problem_.microbatches * (duration(other, Pass::Forward) + duration(other, Pass::InputBackward));
    double longest = 0;
    for (std::int32_t at = stage;; --at) {
      longest = std::max(longest, time + duration(at, Pass::WeightBackward) - problem_.first_start[rank_of(at)]);
      if (at == 0) return longest;
      const Hop& hop = entry(problem_.up, at);
      time += hop.transfer + hop.latency + duration(at - 1, Pass::InputBackward);
    }
  }

  const PipelineProblem& problem_;
  std::vector<double> first_input_;  // by stage
};

}  // namespace

double span_lower_bound(const PipelineProblem& problem) { return Bound(problem)(); }

}  // namespace penstock
