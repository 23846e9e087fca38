// How long an order of passes takes, and why: the simulator's clock without its timeline.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "synthesis/pipeline_problem.h"

namespace penstock {

// What the search minimises: first the longest span of any rank, then, among equals, the mean of the spans, by which
// the many orders with the same longest span differ.
struct SpanScore {
  double longest = std::numeric_limits<double>::infinity();
  double mean = std::numeric_limits<double>::infinity();

  friend bool operator<(const SpanScore& a, const SpanScore& b) {
    return a.longest != b.longest ? a.longest < b.longest : a.mean < b.mean;
  }

  // One number to lower, in which the mean decides among equals.
  [[nodiscard]] double blended() const { return longest + 0.05 * mean; }
};

// Plays orders on a virtual clock as `simulate` does. Keeps its arrays from call to call. Not thread-safe.
class Evaluator {
 public:
  explicit Evaluator(const PipelineProblem& problem);

  // Infinite if the order waits for itself.
  [[nodiscard]] SpanScore evaluate(const PassOrder& order);

  // A place in the last evaluated order.
  struct Place {
    std::int32_t rank;
    std::int32_t position;
  };

  // The chain of passes that the longest span consists of, from its end back to its start: each begins the moment the
  // one after it in the list ends, or its message arrives.
  void critical_path(std::vector<Place>& path) const;

 private:
  struct Arrival {
    double time = never;
    Place cause{-1, -1};  // the pass that decided on the time
  };
  struct Link {
    double free_at = 0;
    Place cause{-1, -1};  // the pass whose message found the link free, before those that queued behind it
  };
  struct Started {
    double end = 0;
    Place cause{-1, -1};  // another rank's pass; none where the pass before it on the rank decided
  };

  static constexpr double never = -1;

  void run_rank(const PassOrder& order, std::int32_t rank);
  [[nodiscard]] const Arrival* input_of(PassCode code, std::int32_t microbatch) const;
  void deliver(Place from, PassCode code, std::int32_t microbatch, double time);

  const PipelineProblem& problem_;
  std::vector<std::int32_t> done_;  // by code
  std::vector<Arrival> inputs_;     // by stage and microbatch
  std::vector<Arrival> gradients_;  // by stage and microbatch
  std::vector<Link> links_;
  std::vector<std::int32_t> next_;  // by rank, the position in its order
  std::vector<double> clock_;       // by rank
  std::vector<std::int32_t> runnable_;
  std::vector<char> is_runnable_;
  std::vector<std::vector<Started>> started_;  // by rank and position
  std::int32_t worst_rank_ = 0;
};

}  // namespace penstock
