/// \file
/// What the stages and links of a pipeline cost: measured by a profile or written by hand, loaded and saved as JSON.
///
///     {
///       "stages": [
///         {"forward_ms": 18.5, "input_backward_ms": 18.1, "weight_backward_ms": 9.3, "activation_bytes": 3221225472,
///          "boundary_bytes": 12582912, "parameter_bytes": 1073741824, "optimizer_bytes": 2147483648}
///       ],
///       "link": {"latency_ms": 0.6, "bandwidth_bytes_per_ms": 25000000},
///       "links": [{"from": 0, "to": 1, "latency_ms": 0.1, "bandwidth_bytes_per_ms": 200000000}],
///       "memory_cap_bytes": [85899345920, 85899345920]
///     }
///
/// `stages` is needed, one entry for each, and in it the three times; sizes that are left out are 0, `gradient_bytes`
/// as large as the parameters, `weight_activation_share` (of the activation, kept between `I` and `W`) 1. A stage may
/// also have `forward_workspace_bytes`, `backward_workspace_bytes`, `input_workspace_bytes`,
/// `weight_workspace_bytes` and `gradient_at_peak_bytes`. `link`
/// (default: immediate) holds for every pair of ranks that `links` does not name; `links` are directed. A bandwidth
/// that is left out is unlimited. `memory_cap_bytes` is left out if no rank has a cap.
#pragma once

#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/base/ids.h"
#include "penstock/base/units.h"

namespace penstock {

/// The limit of `StageCost::weight_activation_share`, far above what any network keeps.
inline constexpr double largest_weight_activation_share = 1000;

/// One stage, for one microbatch. All are at least 0 and finite.
struct StageCost {
  Milliseconds forward;
  Milliseconds input_backward;   ///< gradient of the stage's input only
  Milliseconds weight_backward;  ///< gradients of its weights only; a whole backward takes the sum of the two
  Bytes activation;              ///< kept from forward to backward, the stage's input among them
  Bytes boundary;                ///< the stage's output, and as much again for its gradient on the way back
  Bytes parameter;
  Bytes gradient;
  Bytes optimizer;  ///< the optimizer's state
  /// The share of the activation that is still kept between an `I` and its `W`; what only the input gradient needed is
  /// freed. 1 if nothing is freed, as autograd does by itself; 32/(34 + 5as/h) for the transformer of arXiv
  /// 2401.10241. At most `largest_weight_activation_share`: it is above 1 if more is held after `I` than before it, as
  /// when autograd keeps for `W` the gradients that arrived at each layer besides what `W` needs of the activation.
  double weight_activation_share = 1;
  Bytes forward_workspace = {};   ///< taken while a forward runs, beside what it keeps
  Bytes backward_workspace = {};  ///< the same of a `B`
  Bytes input_workspace = {};     ///< the same of an `I`
  Bytes weight_workspace = {};    ///< the same of a `W`
  /// How much of `gradient` exists when the first `B` or `W` of a step, which computes it, holds the most memory. All
  /// of it exists when that pass ends.
  Bytes gradient_at_peak = {};

  friend bool operator==(const StageCost&, const StageCost&) = default;
};

/// One direction between two ranks. A message of b bytes occupies the link for b / bandwidth and arrives `latency`
/// later.
struct LinkCost {
  Milliseconds latency;                                                    ///< at least 0
  double bytes_per_millisecond = std::numeric_limits<double>::infinity();  ///< above 0

  friend bool operator==(const LinkCost&, const LinkCost&) = default;
};

/// A sender and a receiver.
using RankPair = std::pair<RankId, RankId>;

/// A whole pipeline.
struct Cost {
  std::vector<StageCost> stages;       ///< one for each stage
  LinkCost default_link;               ///< between every pair of ranks that `links` does not name
  std::map<RankPair, LinkCost> links;  ///< by sender and receiver
  std::vector<Bytes> memory_caps;      ///< one for each rank, or empty: no caps

  friend bool operator==(const Cost&, const Cost&) = default;
};

/// The link from one rank to another. O(log of the named links).
[[nodiscard]] const LinkCost& link_between(const Cost& cost, RankId from, RankId to);

/// All stages and all links alike. \param stages at least 1. \throws Error (BadInput) for what `validate` refuses.
[[nodiscard]] Cost uniform_cost(int stages, const StageCost& stage, const LinkCost& link = {});

/// \throws Error (BadInput) naming the first value that is negative, infinite, not a number or above its limit by its
/// JSON path, and where there is no stage.
void validate(const Cost& cost);

/// Reads the JSON form. \param source how messages call the text: a file's name. \throws Error (BadInput), one line
/// that names the JSON path: for what is not JSON, missing, unknown, doubled, negative, not a number, or out of range.
[[nodiscard]] Cost parse_cost(std::string_view json, std::string_view source = "cost");

/// The JSON form; `parse_cost` of it gives back an equal cost.
[[nodiscard]] std::string to_json(const Cost& cost);

/// `parse_cost` of a file. \throws Error (BadInput)
[[nodiscard]] Cost load_cost(const std::filesystem::path& path);

/// Writes `to_json` so that the file is whole or not there. \throws Error (BadInput, RunFailed)
void save_cost(const Cost& cost, const std::filesystem::path& path);

}  // namespace penstock
