/// \file
/// A doctor for a network of one's own: whether it has the same bits however it is cut and scheduled, and what its
/// layers do that pipelines have to know of.
///
///     std::cout << penstock::to_string(penstock::audit(network, penstock::Minibatch{{{inputs}}, {{targets}}}));
///
/// examples/audit_network is a whole program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/exec/microbatch.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// How a network is audited.
struct AuditSettings {
  std::uint64_t seed = 0;  ///< of initial weights and random layers
  Precision precision = Precision::Float32;
};

/// A way of running the network whose numbers are compared with those of libtorch's own autograd.
enum class AuditedWay : std::uint8_t {
  Whole,       ///< one stage, each backward at once
  Split,       ///< one stage, the backward in `I` and `W`, with passes of other microbatches in between
  Recomputed,  ///< one stage whose layers are all run again
  Apart,       ///< a stage for each layer, all microbatches in flight, every boundary copied as between ranks
};

/// One number that is not the same.
struct AuditDifference {
  AuditedWay way = AuditedWay::Whole;
  std::string what;     ///< "gradient of weight", "output 0 of microbatch 1"
  double relative = 0;  ///< the norm of the difference over that of the value, or 1 where one of them is missing

  friend bool operator==(const AuditDifference&, const AuditDifference&) = default;
};

/// What was found about one layer.
struct LayerAudit {
  std::int64_t layer = 0;
  std::string name;                  ///< as its `LayerSpec` has it
  bool is_random = false;            ///< it draws random numbers in training
  bool works_in_place = false;       ///< it changes its inputs, of which it therefore gets copies
  bool changes_dtype = false;        ///< an output has another floating dtype than the first input
  std::vector<std::string> buffers;  ///< those that its forward pass changes
  std::vector<std::string> shared;   ///< "weight is layer 3's weight": parameters that are one with others, tied or not
  Bytes leak;                        ///< how much more it holds after each microbatch; 0 for a layer that keeps nothing
  std::string refused;               ///< why it cannot be trained here; empty where it can
  std::vector<AuditDifference> differences;

  friend bool operator==(const LayerAudit&, const LayerAudit&) = default;
};

/// What `audit` found.
struct AuditReport {
  std::vector<LayerAudit> layers;
  std::string refused;                       ///< why the network as a whole, or its loss, cannot be trained
  std::vector<AuditDifference> differences;  ///< of the losses

  /// Whether the network can be trained with the same bits under any cut and schedule, and holds no more memory from
  /// step to step.
  [[nodiscard]] bool holds() const;

  friend bool operator==(const AuditReport&, const AuditReport&) = default;
};

/// Runs the microbatches forward and backward with libtorch's autograd alone and in each `AuditedWay`, and compares
/// losses, outputs and gradients bit by bit. Builds the layers several times, all in this process and on the host; two
/// or three small microbatches will do, and take seconds. Nothing is updated. What is refused or thrown is part of the
/// report. \param microbatches at least two, so that one is in flight beside another. \throws Error (BadInput) for
/// fewer.
[[nodiscard]] AuditReport audit(const Network& network, const std::vector<Microbatch>& microbatches,
                                const AuditSettings& settings = {});

/// The same for a minibatch, cut into `microbatches` parts. Example:
/// `audit(network, Minibatch{{{inputs}}, {{targets}}})`.
[[nodiscard]] AuditReport audit(const Network& network, const Minibatch& minibatch, int microbatches = 3,
                                const AuditSettings& settings = {});

/// A table with a line for each layer, and below it what to do about what was found.
[[nodiscard]] std::string to_string(const AuditReport& report);

}  // namespace penstock
