// Networks, cuts, schedules and settings drawn from a seed, each compared to one stage. PENSTOCK_PROPERTY_CASES says
// how many (50), PENSTOCK_PROPERTY_SEED where to begin (1).
#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

#include <ATen/ATen.h>

#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

#include "drawn_cases.h"
#include "parity/small_networks.h"

namespace penstock {
namespace {

struct Drawn {
  TraceSettings one;
  TraceSettings cut;
  const ScheduleFamily* family = nullptr;
  int ranks = 1;
};

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : generator_(seed) {}

  Drawn operator()() {
    Drawn drawn;
    TraceSettings& one = drawn.one;
    one.network = pick(std::vector<std::string>{"gpt", "tied gpt", "mlp", "convnet", "skips", "batch norm"});
    one.steps = 3;
    one.microbatches = below(6) + 1;
    one.samples = one.microbatches + below(8);
    // What is normalised needs something to be normalised by.
    if (one.network == "batch norm") one.samples += one.microbatches;
    one.dropout = pick(std::vector{0.0, 0.1});
    one.clip = pick(std::vector{0.0, 0.1, 1.0});
    one.masked = below(2) == 0;
    one.lengths = below(2) == 0;
    one.precision = pick(std::vector{Precision::Float32, Precision::Float32, Precision::BFloat16, Precision::Float16});
    drawn.cut = one;
    drawn.cut.post_validation = below(3) == 0;
    drawn.cut.steps_in_flight = below(3) + 1;
    if (below(2) == 0)
      for (int layer = 0; layer < 8; ++layer) drawn.cut.recompute.push_back(below(2) == 0);
    pick_schedule(drawn);
    return drawn;
  }

 private:
  int below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(generator_); }
  template <class Value>
  Value pick(const std::vector<Value>& values) {
    return values[static_cast<std::size_t>(below(static_cast<int>(values.size())))];
  }

  void pick_schedule(Drawn& drawn) {
    do {
      drawn.family =
          &schedule_families()[static_cast<std::size_t>(below(static_cast<int>(schedule_families().size())))];
    } while (drawn.family->name == "forward-only");
    drawn.ranks = drawn.family->stages_per_rank == 1 ? 2 * (below(3) + 1) : 2;
    const int stages = drawn.ranks * drawn.family->stages_per_rank;
    // The order of additions differs where a stage has two copies; AdamW makes much of the last bits, and a loss of
    // half precision has few.
    if (drawn.family->bidirectional) {
      drawn.one.optimizer = drawn.cut.optimizer = "sgd";
      drawn.one.precision = drawn.cut.precision = Precision::Float32;
      // So does a second step through batch norms of two samples.
      if (drawn.one.network == "batch norm") drawn.one.steps = drawn.cut.steps = 1;
    } else {
      drawn.one.optimizer = drawn.cut.optimizer = pick(std::vector<std::string>{"adamw", "sgd"});
    }
    std::vector<std::int64_t> inner(7);
    std::iota(inner.begin(), inner.end(), 1);
    std::shuffle(inner.begin(), inner.end(), generator_);
    drawn.cut.cut.assign(inner.begin(), inner.begin() + stages - 1);
    drawn.cut.cut.push_back(0);
    std::sort(drawn.cut.cut.begin(), drawn.cut.cut.end());
    if (!drawn.family->bidirectional && below(3) == 0) pick_replicas(drawn);
  }

  // Under a gradient tree, with which the bits are those of one replica.
  void pick_replicas(Drawn& drawn) {
    TraceSettings& one = drawn.one;
    TraceSettings& cut = drawn.cut;
    one.gradient_tree = cut.gradient_tree = pick(std::vector{2, 4});
    one.microbatches = cut.microbatches = cut.gradient_tree * (below(2) + 1);
    one.samples = cut.samples = one.samples + std::int64_t{2} * one.microbatches;
    cut.replicas = cut.gradient_tree == 2 ? pick(std::vector{1, 2}) : pick(std::vector{1, 2, 4});
    cut.shard = cut.replicas > 1 && below(2) == 0;
    cut.bucket = pick(std::vector{Bytes{4 << 20}, Bytes{600}});
  }

  std::mt19937_64 generator_;
};

std::string describe(const Drawn& drawn, std::uint64_t seed) {
  const TraceSettings& cut = drawn.cut;
  return fmt::format(
      "PENSTOCK_PROPERTY_SEED={} PENSTOCK_PROPERTY_CASES=1: {} on {} ranks of {}, cut at {}, {} microbatches of {} "
      "samples, dropout {}, clip {}, {}, masked {}, lengths {}, precision {}, post-validation {}, {} in flight, "
      "recompute {}, {} replicas, gradient tree {}, sharded {}",
      seed, cut.network, drawn.ranks, drawn.family->name, fmt::join(cut.cut, ","), cut.microbatches, cut.samples,
      cut.dropout, cut.clip, cut.optimizer, cut.masked, cut.lengths, static_cast<int>(cut.precision),
      cut.post_validation.value_or(false), cut.steps_in_flight, fmt::join(cut.recompute, ","), cut.replicas,
      cut.gradient_tree, cut.shard);
}

TEST(Property, WhateverIsDrawnHasTheNumbersOfOneStage) {
  const std::uint64_t first = from_environment("PENSTOCK_PROPERTY_SEED", 1);
  const std::uint64_t cases = from_environment("PENSTOCK_PROPERTY_CASES", instrumented ? 10 : 50);
  for (std::uint64_t seed = first; seed < first + cases && !HasFailure(); ++seed) {
    const Drawn drawn = Draw(seed)();
    SCOPED_TRACE(describe(drawn, seed));
    const Trace one = train_small(drawn.one);
    ASSERT_FALSE(one.losses.empty() || one.weights.empty()) << "there is nothing to compare";
    const int share = drawn.cut.microbatches / drawn.cut.replicas;
    const std::vector<Schedule> replicas(static_cast<std::size_t>(drawn.cut.replicas),
                                         make_schedule(drawn.family->name, drawn.ranks, share));
    const Trace cut = train_small(drawn.cut, side_by_side(replicas));
    if (drawn.family->bidirectional)
      expect_close(one, cut);
    else
      expect_same_bits(one, cut);
  }
}

}  // namespace
}  // namespace penstock
