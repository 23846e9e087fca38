/// \file
/// What a plan and a simulation stand on, as values and as JSON: `Cost`, the stages and links of a pipeline, and
/// `LayerCosts`, the layers of a network at several microbatch sizes with the links and ranks of a machine. A profile
/// measures them, or they are written by hand. From `LayerCosts` follows the `Cost` of any cut at any size between the
/// measured ones (`cost_of_cut`).
///
/// The form of a `Cost`:
///
///     {
///       "stages": [
///         {"forward_ms": 18.5, "input_backward_ms": 18.1, "weight_backward_ms": 9.3, "activation_bytes": 3221225472,
///          "boundary_bytes": 12582912, "parameter_bytes": 1073741824, "optimizer_bytes": 2147483648}
///       ],
///       "link": {"latency_ms": 0.6, "bandwidth_bytes_per_ms": 25000000},
///       "links": [{"from": 0, "to": 1, "latency_ms": 0.1, "bandwidth_bytes_per_ms": 200000000}],
///       "memory_cap_bytes": [85899345920, 85899345920],
///       "contention": 1.2
///     }
///
/// `stages` is required: an entry for each stage, with the three times. A size that is left out is 0, but
/// `gradient_bytes` is then as large as the parameters, and `weight_activation_share` (the share of the activation that
/// is kept between `I` and `W`) is 1. A stage may also have `forward_workspace_bytes`, `backward_workspace_bytes`,
/// `input_workspace_bytes`, `weight_workspace_bytes`, `gradient_at_peak_bytes`, `kept_gradient_bytes`, `update_ms` and
/// `gradient_returns`. `link` (default: immediate) holds for every pair of ranks that `links` does not name; `links`
/// are directed. A bandwidth that is left out is unlimited. `memory_cap_bytes` is left out if no rank has a cap, and
/// `contention` (`Cost::contention`) if it is 1.
///
/// The form of `LayerCosts`:
///
///     {
///       "model": {"name": "gpt", "width": "128"},
///       "machine": {"processor": "…", "cores": "2"},
///       "layers": [
///         {"name": "embedding", "parameter_bytes": 3145728, "optimizer_bytes": 6291456, "update_ms": 0.2,
///          "sizes": [{"samples": 1, "forward_ms": 0.1, "input_backward_ms": 0, "weight_backward_ms": 0.2,
///                     "activation_bytes": 131072, "boundary_bytes": 131072},
///                    {"samples": 8, "forward_ms": 0.5, "input_backward_ms": 0, "weight_backward_ms": 1.1,
///                     "activation_bytes": 1048576, "boundary_bytes": 1048576}]},
///         {"name": "block 0", "sizes": […]},
///         {"name": "block 1", "like": "block 0"}
///       ],
///       "action_overhead_ms": 0.006,
///       "step_overhead_ms": 0.3,
///       "contention": 1.2,
///       "link": {"latency_ms": 0.02, "bandwidth_bytes_per_ms": 5000000},
///       "links": [{"from": 0, "to": 1, "latency_ms": 0.1}],
///       "ranks": [{"speed": 1, "memory_cap_bytes": 8589934592}, {"speed": 0.5}],
///       "measured": {"at": "2026-11-29T09:30:58.123Z", "rounds": 8, "spread": 0.013},
///       "ties": [{"owner": {"layer": 0, "parameter": "token.weight"},
///                 "copy": {"layer": 9, "parameter": "output.weight"}, "bytes": 3145728}]
///     }
///
/// A network whose first layers are frozen has `layers_without_gradient`, and a tie of frozen parameters has `frozen`.
///
/// `layers` is required, and in each layer its `name` and either `like`, the name of an earlier layer that it equals,
/// or `sizes`, ascending by samples, each with the three times. `input_needs_gradient` is true if it is left out. The
/// time of a pass is above 0 for the layer as a whole. What is left out is 0, with these exceptions: `gradient_bytes`
/// is as large as the parameters, `backward_ms` is the sum of the two parts, `weight_activation_share`, `contention`
/// and `speed` are 1, links are immediate and unlimited, memory has no cap, and no parameter is tied. `model` and
/// `machine` may hold any texts and numbers. Messages name the file that holds the form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/base/types.h"

namespace penstock {

/// The limit of `StageCost::weight_activation_share`, far above what any network keeps.
inline constexpr double largest_weight_activation_share = 1000;
/// The limit of `Cost::contention`.
inline constexpr double largest_contention = 1000;

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
  /// The gradients of runs of microbatches that a gradient tree keeps, at most, beside `gradient`. 0 without a tree.
  Bytes kept_gradients = {};
  Milliseconds update = {};  ///< of its weights, after its rank's last action; it shows if steps follow each other
  /// Whether the gradient of its output, as large as `boundary`, comes back. False if no layer up to here learns: the
  /// message on the way back is then empty.
  bool gradient_returns = true;

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
  /// How much longer a pass takes while all ranks compute than while its rank alone does, because they share a machine;
  /// the times of `stages` are those of all computing. From 1 (ranks take nothing from each other) to
  /// `largest_contention`; 1.0 to 1.3 where each rank has a core, and more where other programs take a part of them.
  double contention = 1;

  friend bool operator==(const Cost&, const Cost&) = default;
};

/// The link from one rank to another. O(log of the named links).
[[nodiscard]] const LinkCost& link_between(const Cost& cost, RankId from, RankId to);

/// All stages and all links alike. \param stages at least 1. \throws Error (BadInput) for what `validate` refuses.
[[nodiscard]] Cost uniform_cost(int stages, const StageCost& stage, const LinkCost& link = {});

/// \throws Error (BadInput) if there is no stage, or if a value is negative, infinite, not a number or above its limit;
/// the message names the first such value by its JSON path.
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

/// A measured time: the median and how far the measurements spread (the half of them in the middle).
struct MeasuredTime {
  Milliseconds median;
  Milliseconds spread = {};

  friend bool operator==(const MeasuredTime&, const MeasuredTime&) = default;
};

/// A layer at one microbatch size. All are at least 0 and finite.
struct LayerAtSize {
  std::int64_t samples = 1;  ///< of the microbatch, at least 1
  MeasuredTime forward;      ///< and so the price of recomputing it
  MeasuredTime input_backward;
  MeasuredTime weight_backward;
  std::optional<MeasuredTime> backward = std::nullopt;  ///< in one piece, where that is not the sum of its parts
  Bytes activation = {};          ///< kept from forward to backward without recomputation, the layer's input among it
  Bytes boundary = {};            ///< what crosses a cut after this layer: its output, and skips that pass there
  Bytes forward_workspace = {};   ///< taken at most while the pass runs, beside the activation
  Bytes backward_workspace = {};  ///< the same of a backward, beside the output's gradient too
  /// Of the output, what the layer itself keeps for its backward. The next layer of the same stage keeps it as its
  /// input in any case; at the end of a stage it is held beside what was sent. Not a part of `activation`.
  Bytes kept_output = {};
  /// As `backward_workspace`, but for a layer that another one of the stage follows. The output's gradient then comes
  /// from that layer, and is a part of this for as long as it is held. 0: it is held to the end.
  Bytes inner_workspace = {};
  Bytes input_workspace = {};        ///< as `backward_workspace`, of an `I`; 0: as in one piece
  Bytes inner_input_workspace = {};  ///< as `inner_workspace`, of an `I`; 0: held to the end
  /// The gradients that an `I` keeps for its `W`, without the output's where that came from another rank.
  Bytes deferred = {};
  Bytes inner_deferred = {};    ///< the same with the output's gradient, where another layer follows; 0: their sum
  Bytes weight_workspace = {};  ///< taken at most while a `W` runs, beside what the `I` kept

  friend bool operator==(const LayerAtSize&, const LayerAtSize&) = default;
};

/// One layer.
struct LayerCost {
  std::string name;
  std::vector<LayerAtSize> sizes;  ///< ascending by samples, at least one
  Bytes parameter = {};
  Bytes gradient = {};
  Bytes optimizer = {};
  Milliseconds update = {};              ///< of its weights, once a step
  double weight_activation_share = 1;    ///< as in `StageCost`
  std::optional<std::size_t> like = {};  ///< the earlier layer that this one equals in all of the above

  friend bool operator==(const LayerCost&, const LayerCost&) = default;
};

/// One rank, where ranks are not alike.
struct RankCost {
  double speed = 1;                                ///< times are divided by it; above 0
  std::optional<Bytes> memory_cap = std::nullopt;  ///< nothing: no cap

  friend bool operator==(const RankCost&, const RankCost&) = default;
};

/// One parameter of one layer.
struct LayerParameter {
  std::int64_t layer = 0;
  std::string parameter;  ///< its name within the layer, such as "token.weight"

  friend bool operator==(const LayerParameter&, const LayerParameter&) = default;
};

/// Two parameters that are one and live in two layers, as those of an embedding and of the head that shares its
/// weights. The `parameter`, `gradient` and `optimizer` of either layer count it: each end has a buffer of its own, and
/// at the end of a step both get the sum of their gradients.
struct LayerTie {
  LayerParameter owner;
  LayerParameter copy;  ///< in another layer; the copy of no other owner, and itself the owner of nothing
  Bytes size;           ///< of the parameter, and of its gradient
  bool frozen = false;  ///< without a gradient: nothing is exchanged

  friend bool operator==(const LayerTie&, const LayerTie&) = default;
};

/// "token.weight of layer 0 and output.weight of layer 9".
[[nodiscard]] std::string to_string(const LayerTie& tie);

/// How the times of all layers were measured.
struct Measurement {
  WallTime at;        ///< when it ended
  int rounds = 1;     ///< over all layers
  double spread = 0;  ///< how well the median is known: its standard error between the rounds, as a share of it

  friend bool operator==(const Measurement&, const Measurement&) = default;
};

/// Costs whose `Measurement::spread` is above this come from a busy machine: a plan made from them may not hold.
inline constexpr double noisy_spread = 0.05;

/// What a cost was measured of or on: names and values, such as "width" and "128".
using Description = std::map<std::string, std::string>;

/// A whole network on a whole machine.
struct LayerCosts {
  Description model;
  Description machine;
  std::vector<LayerCost> layers;
  std::int64_t input_bytes_per_sample = 0;  ///< of the network's input, which recomputing the first layer keeps
  /// If it needs none, the first stage's `I` does nothing and its `W` is a whole backward, until which the gradient
  /// that arrived is held.
  bool input_needs_gradient = true;
  /// The first so many layers are frozen, and no gradient goes back to them: as if the layer behind them were the first
  /// of a network whose input needs none. Fewer than `layers`; 0 where `input_needs_gradient`.
  std::int64_t layers_without_gradient = 0;
  Milliseconds action_overhead = {};  ///< of each action of a rank, beside its layers
  Milliseconds step_overhead = {};    ///< of each step, beside passes, updates and exchanges
  double contention = 1;              ///< as `Cost::contention`
  LinkCost default_link = {};         ///< between every pair of ranks that `links` does not name
  std::map<RankPair, LinkCost> links = {};
  std::vector<RankCost> ranks = {};  ///< by rank; empty: all alike and without caps
  std::vector<LayerTie> ties = {};
  std::optional<Measurement> measured = std::nullopt;  ///< nothing if it is not known

  friend bool operator==(const LayerCosts&, const LayerCosts&) = default;
};

/// \throws Error (BadInput) that names, by its JSON path, the first value that is out of range: one that is negative or
/// not finite, a layer whose passes take no time, sizes that do not ascend, a `like` of a layer that differs, ties of
/// layers that do not exist, ties within one layer or larger than its parameters, and a copy that has two owners or is
/// an owner.
void validate(const LayerCosts& costs);

/// Reads the JSON form. \param source how messages call the text: a file's name. \throws Error (BadInput), one line.
[[nodiscard]] LayerCosts parse_layer_costs(std::string_view json, std::string_view source = "cost");

/// The JSON form; `parse_layer_costs` of it gives back equal costs. Layers that are alike are written once.
[[nodiscard]] std::string to_json(const LayerCosts& costs);

/// `parse_layer_costs` of a file. \throws Error (BadInput)
[[nodiscard]] LayerCosts load_layer_costs(const std::filesystem::path& path);

/// Writes `to_json` so that the file is whole or not there. \throws Error (BadInput, RunFailed)
void save_layer_costs(const LayerCosts& costs, const std::filesystem::path& path);

/// Refuses costs of another model or machine. Every key of `expected` must be there with the same value. \param what
/// "model" or "machine". \param source what the message calls the costs. \throws Error (BadInput) that names the key
/// and both values.
void require_description(const Description& found, const Description& expected, std::string_view what,
                         std::string_view source);

/// The microbatch sizes between which all layers were measured.
struct SampleRange {
  std::int64_t least = 1;
  std::int64_t most = 1;
  std::string narrowest_layer;  ///< the first layer that sets `most`

  friend bool operator==(const SampleRange&, const SampleRange&) = default;
};

/// The range of `costs`. `least` is above `most` where no size is within the range of all layers.
[[nodiscard]] SampleRange measured_range(const LayerCosts& costs);

/// The costs where tied parameters are one object: only the owner's layer counts the weights and the optimizer state of
/// what is shared, and only the last of the layers that share it counts its gradient, which is made first in that
/// layer's backward. What a layer's optimizer keeps is shared out by bytes of parameters. No layer of the result is
/// `like` another, and it has no ties. Right only for cuts that keep all layers of a tie on one rank.
/// \throws Error (BadInput) as `validate`.
[[nodiscard]] LayerCosts with_shared_ties(LayerCosts costs);

/// How a cut is run.
struct CutRun {
  std::vector<bool> recomputed = {};     ///< by stage; empty: none
  bool split_backward = true;            ///< whether the schedule has `I` and `W`
  std::vector<std::int32_t> ranks = {};  ///< the rank of each stage; empty: stage s on rank s
  int kept_gradients = 0;                ///< of runs of microbatches, beside the one that is added to (`GradientRuns`)
};

/// The link from one rank to another. O(log of the named links).
[[nodiscard]] const LinkCost& link_between(const LayerCosts& costs, RankId from, RankId to);

/// The cost of the stages of a cut, with the links and, where one is capped, the caps of the ranks.
/// \param first_layers of each stage, ascending from 0. \param samples of a microbatch. It may be a fraction: the mean
/// of microbatches of two sizes, for which times are exact, and sizes in bytes are those of the next whole number.
/// \throws Error (BadInput) for what is not a cut of these layers, for samples that no interpolation reaches, naming
/// the layer and its measured sizes, and for costs that `validate` refuses.
[[nodiscard]] Cost cost_of_cut(const LayerCosts& costs, const std::vector<std::int64_t>& first_layers, double samples,
                               const CutRun& run = {});

}  // namespace penstock
