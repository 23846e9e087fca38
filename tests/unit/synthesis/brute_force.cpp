#include "unit/synthesis/brute_force.h"

#include <algorithm>
#include <limits>
#include <map>

namespace penstock {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

struct Beginning {
  std::vector<std::int32_t> done;      // by code
  std::vector<double> free_from;       // by rank
  std::vector<double> link_free_from;  // by link
  std::vector<double> arrival;         // by code and microbatch: when its input is there
  std::vector<double> work_left;       // by rank
  double last_start = 0;
};

class BruteForce {
 public:
  BruteForce(const PipelineProblem& problem, double span, std::int64_t most_nodes)
      : problem_(problem), span_(span), nodes_left_(most_nodes) {}

  std::optional<bool> run() {
    Beginning nothing;
    nothing.done.assign(problem_.duration.size(), 0);
    nothing.free_from.assign(static_cast<std::size_t>(problem_.ranks), 0);
    nothing.link_free_from.assign(static_cast<std::size_t>(problem_.links), 0);
    nothing.arrival.assign(problem_.duration.size() * static_cast<std::size_t>(problem_.microbatches), never);
    nothing.work_left = problem_.busy;
    for (std::int32_t m = 0; m < problem_.microbatches; ++m) arrival(nothing, code_of(0, Pass::Forward), m) = 0;
    const bool found = follow(nothing);
    if (!found && nodes_left_ <= 0) return std::nullopt;
    return found;
  }

 private:
  double& arrival(Beginning& beginning, PassCode code, std::int32_t microbatch) const {
    return beginning.arrival[static_cast<std::size_t>(code) * static_cast<std::size_t>(problem_.microbatches) +
                             static_cast<std::size_t>(microbatch)];
  }

  [[nodiscard]] double held(const Beginning& beginning, std::int32_t rank) const {
    double count = 0;
    for (const std::int32_t stage : problem_.stages_of[static_cast<std::size_t>(rank)])
      count += beginning.done[static_cast<std::size_t>(code_of(stage, Pass::Forward))] -
               beginning.done[static_cast<std::size_t>(code_of(stage, Pass::WeightBackward))];
    return count;
  }

  void send(Beginning& beginning, const Hop& hop, double time, PassCode to, std::int32_t microbatch) const {
    if (hop.link >= 0) {
      double& free_from = beginning.link_free_from[static_cast<std::size_t>(hop.link)];
      free_from = std::max(free_from, time) + hop.transfer;
      time = free_from + hop.latency;
    }
    arrival(beginning, to, microbatch) = time;
  }

  // Does the pass, and says whether that can still lead to a shorter span.
  bool perform(Beginning& beginning, PassCode code, double start) const {
    const std::int32_t stage = stage_of(code);
    const auto rank = static_cast<std::size_t>(problem_.rank_of[static_cast<std::size_t>(stage)]);
    const std::int32_t microbatch = beginning.done[static_cast<std::size_t>(code)]++;
    const double duration = problem_.duration[static_cast<std::size_t>(code)];
    const double end = start + duration;
    beginning.free_from[rank] = end;
    beginning.work_left[rank] -= duration;
    beginning.last_start = start;
    if (pass_of(code) == Pass::Forward) {
      if (stage + 1 < problem_.stages)
        send(beginning, problem_.down[static_cast<std::size_t>(stage)], end, code_of(stage + 1, Pass::Forward),
             microbatch);
      else
        arrival(beginning, code_of(stage, Pass::InputBackward), microbatch) = end;
    } else if (pass_of(code) == Pass::InputBackward) {
      arrival(beginning, code_of(stage, Pass::WeightBackward), microbatch) = end;
      if (stage > 0)
        send(beginning, problem_.up[static_cast<std::size_t>(stage)], end, code_of(stage - 1, Pass::InputBackward),
             microbatch);
    }
    for (std::size_t other = 0; other < beginning.free_from.size(); ++other) {
      const double begin =
          beginning.work_left[other] > 1e-9 ? std::max(beginning.free_from[other], start) : beginning.free_from[other];
      if (begin + beginning.work_left[other] - problem_.first_start[other] >= span_) return false;
    }
    return true;
  }

  bool is_known(const Beginning& beginning) {
    std::vector<double> times = beginning.free_from;
    times.insert(times.end(), beginning.link_free_from.begin(), beginning.link_free_from.end());
    times.insert(times.end(), beginning.arrival.begin(), beginning.arrival.end());
    times.push_back(beginning.last_start);
    auto& known = known_[beginning.done];
    for (const auto& other : known)
      if (std::equal(other.begin(), other.end(), times.begin(), std::less_equal<>())) return true;
    std::erase_if(known, [&](const auto& other) {
      return std::equal(times.begin(), times.end(), other.begin(), std::less_equal<>());
    });
    known.push_back(std::move(times));
    return false;
  }

  bool follow(Beginning& beginning) {
    if (--nodes_left_ <= 0) return false;
    if (is_known(beginning)) return false;
    bool complete = true;
    for (PassCode code = 0; code < static_cast<PassCode>(problem_.duration.size()); ++code) {
      const std::int32_t microbatch = beginning.done[static_cast<std::size_t>(code)];
      if (microbatch == problem_.microbatches) continue;
      complete = false;
      const std::int32_t stage = stage_of(code);
      const std::int32_t rank = problem_.rank_of[static_cast<std::size_t>(stage)];
      const double ready = arrival(beginning, code, microbatch);
      if (ready == never) continue;
      if (pass_of(code) == Pass::Forward &&
          held(beginning, rank) + 1 > problem_.count_cap[static_cast<std::size_t>(rank)])
        continue;
      if (pass_of(code) == Pass::InputBackward && microbatch >= beginning.done[static_cast<std::size_t>(code - 1)])
        continue;
      const double start = std::max(ready, beginning.free_from[static_cast<std::size_t>(rank)]);
      if (start < beginning.last_start) continue;
      Beginning next = beginning;
      if (perform(next, code, start) && follow(next)) return true;
    }
    return complete;
  }

  const PipelineProblem& problem_;
  double span_;
  std::int64_t nodes_left_;
  std::map<std::vector<std::int32_t>, std::vector<std::vector<double>>> known_;
};

}  // namespace

std::optional<bool> exists_shorter(const PipelineProblem& problem, double span, std::int64_t most_nodes) {
  return BruteForce(problem, span, most_nodes).run();
}

}  // namespace penstock
