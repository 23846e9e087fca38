// Sums of gradients along a fixed tree, which do not depend on how many replicas share the microbatches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "penstock/exec/rank.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/layer.h"
#include "penstock/schedule/replicas.h"

namespace penstock {

// Adds up lists of tensors as they come; an undefined tensor adds nothing.
class OrderedSum {
 public:
  enum class Order : std::uint8_t {
    Row,   // ((a + b) + c) + d, in one buffer
    Tree,  // (a + b) + (c + d): 2^n parts need n + 1 buffers at most
  };
  explicit OrderedSum(Order order) : order_(order) {}

  // Takes the memory of `part`, and writes to it.
  void add(Tensors part);
  // The sum of all parts since the last call; nothing if there was none.
  [[nodiscard]] Tensors take();

 private:
  struct Summed {
    int height = 0;  // it is the sum of 2^height parts
    Tensors sum;
  };
  void join_last_two();

  Order order_;
  std::vector<Summed> summed_;
};

// The sums of one rank: a run's gradients add up where autograd leaves them, and make room for the next run's. What
// batch norms gather is kept by microbatch, since a schedule may have forwards in any order.
class GradientTree {
 public:
  // \param stages those of one rank, which must outlive it.
  GradientTree(const std::vector<Stage>& stages, const GradientRuns& runs, int microbatches);

  // Makes the executor call this before what `reduction` has called so far.
  void join(GradientReduction& reduction);
  // Begins a step; also anew, with other weights.
  void begin();
  // After the schedule: for stages without a backward.
  void finish();

 private:
  struct StageSums {
    std::vector<at::Tensor> parameters;
    std::vector<std::shared_ptr<DeferredBatchNorm>> norms;
    OrderedSum gradients{OrderedSum::Order::Tree};
    std::int64_t added = 0;         // microbatches
    std::vector<Tensors> gathered;  // by microbatch, of every norm
  };

  void take_gathered(StageSums& stage, std::size_t microbatch);
  void count_gradient(StageSums& stage);
  void finish(StageSums& stage);

  GradientRuns runs_;
  std::vector<StageSums> stages_;
};

}  // namespace penstock
