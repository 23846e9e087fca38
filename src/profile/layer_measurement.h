// One layer at one microbatch size on one rank: a stage of its own, passed through again and again.
#pragma once

#include <functional>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/exec/device.h"
#include "penstock/exec/memory.h"
#include "penstock/exec/stage.h"

namespace penstock {

// Memory that is read between passes, as what other layers of a stage read and write between two passes of one: a
// layer finds its weights and activations where they would be by then.
class Between {
 public:
  // \param on_host whether passes use this memory's caches at all.
  explicit Between(bool on_host) : on_host_(on_host) {}
  // \param bytes that the other layers go through; no more than twice the largest cache is read.
  void set_bytes(std::int64_t bytes);
  // Reads all of it, and after it `next`, which was made last.
  void pass(const Tensors& next) const;

 private:
  bool on_host_;
  std::vector<std::int64_t> memory_;  // as much as was ever needed
  std::size_t read_ = 0;              // of it
};

// What a rank's thread measures with.
struct Instruments {
  const Clock& clock;
  MemoryMeter& memory;
  DeviceLane& lane;
};

// What the rank holds, and the most since `reset_peak`: on a device all ranks that share it.
[[nodiscard]] Bytes held(const Instruments& instruments);
[[nodiscard]] Bytes peak(const Instruments& instruments);
void reset_peak(const Instruments& instruments);

// The times of all passes, in milliseconds, and the bytes, which are the same in each.
struct LayerSamples {
  std::vector<double> forward;
  std::vector<double> backward;
  std::vector<double> input_backward;
  std::vector<double> weight_backward;
  LayerAtSize sizes;  // bytes only
  Bytes for_weights;  // held between I and W

  // One time more of each kind of pass: the mean of the others'.
  void append_mean(const LayerSamples& others);
  [[nodiscard]] double sum_of_times() const;
  void forget_times();
};

// What flows into the layer, and what its loss compares with.
struct LayerInput {
  Tensors boundary;
  Tensors targets;
  bool counts = true;  // whether the boundary is the rank's own memory
};

// Passes through one stage. `boundary` of the input stays as it is; each pass takes a copy, as of a message.
class LayerMeasurement {
 public:
  // \param between must outlive it; null: every pass follows the one before it at once.
  LayerMeasurement(const Instruments& instruments, Stage& stage, const LayerInput& input,
                   const Between* between = nullptr)
      : instruments_(instruments), stage_(stage), input_(input), between_(between) {}

  // Forward and backward, then forward and the backward in halves. \param samples where the times go; null: nowhere.
  void cycle(LayerSamples* samples);

  // The layer's output, detached; after a cycle.
  [[nodiscard]] const Tensors& outputs() const { return outputs_; }

 private:
  // Runs `pass`, which begins with `next`, and returns its time.
  double timed(const Tensors& next, const std::function<void()>& pass);
  // Returns the gradients of the outputs, as they would arrive. \param samples takes bytes and time.
  [[nodiscard]] Tensors forward(LayerSamples& samples);
  void whole_backward(LayerSamples& samples, Tensors gradients);
  void split_backward(LayerSamples& samples, Tensors gradients);

  Instruments instruments_;
  Stage& stage_;
  const LayerInput& input_;
  const Between* between_;
  Tensors outputs_;
  Bytes base_;  // held before the forward
};

}  // namespace penstock
