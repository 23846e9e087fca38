/// \file
/// Buffers that a layer's forward pass changes, such as the running statistics of a norm.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "penstock/nn/layer.h"
#include "penstock/nn/versions.h"

namespace penstock {

/// How a layer is run, as far as its buffers are concerned.
struct BufferUse {
  bool recomputed = false;  ///< its forward pass is run again for the backward
  bool copied = false;      ///< other ranks hold copies of the layer, which see other microbatches
};

/// Watches over the registered buffers of one layer in training. A forward pass that is run again sees them as its
/// first run did, and leaves them as they were before it: each microbatch counts once, and both runs compute the same.
/// A change that would depend on the schedule is refused. Layers that are neither recomputed nor copied, and whose
/// microbatches come in their order, cost nothing; of others the buffers are compared before and after each pass, and
/// one copy of what they hold serves all microbatches between two changes.
///
/// What a module keeps in plain members is out of reach. Not thread-safe.
class LayerBuffers {
 public:
  /// \param layer its index within the network, for errors.
  LayerBuffers(const Layer& built, std::int64_t layer, const BufferUse& use);

  /// A step begins: what is kept of the one before is freed, and microbatches count from 0 again.
  void begin_step();

  /// Before a forward pass in training; within a `RecomputeScope` it is a second one. \throws Error (RunFailed) where
  /// the second run finds other tensors than the first.
  void begin_pass(std::int64_t microbatch);

  /// After it. \throws Error (RunFailed) that names a buffer which the pass changed though other ranks hold copies of
  /// the layer or the microbatches do not come in their order, one that it replaced though it is to run again, or, in
  /// a layer that is recomputed or copied, a parameter that it changed.
  void end_pass();

 private:
  struct Values {
    std::vector<at::Tensor> buffers;  // the module's own, defined ones
    std::vector<at::Tensor> copies;
    Versions versions;
  };
  using Kept = std::shared_ptr<const Values>;

  [[nodiscard]] std::vector<at::Tensor> buffers() const;
  [[nodiscard]] std::string name_of(std::size_t buffer) const;
  [[nodiscard]] Kept values();
  void check_same_tensors(const Values& before) const;
  void put(const Values& first);
  void refuse_changes(const Values& before) const;
  void refuse_changed_parameters() const;

  Layer layer_;
  std::int64_t index_;
  BufferUse use_;
  std::int64_t last_microbatch_ = -1;
  std::map<std::int64_t, Kept> first_runs_;  // by microbatch
  Kept latest_;                              // the last that was copied
  // Of the pass under way.
  enum class Pass : std::uint8_t { Free, Kept, Watched, Second } pass_ = Pass::Free;
  Kept before_;
  Versions parameter_versions_;
};

/// Refuses a layer of which several ranks hold copies, if it has a norm of libtorch's that keeps running statistics in
/// training: each copy would see other microbatches. \throws Error (BadInput)
void check_copied(const Layer& built, std::int64_t layer);

}  // namespace penstock
