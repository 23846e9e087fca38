/// \file
/// What the layers of a network cost at several microbatch sizes, and the links and ranks of a machine: what a plan is
/// made from. From it follows the `Cost` of any cut at any size between the measured ones.
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
///       "link": {"latency_ms": 0.02, "bandwidth_bytes_per_ms": 5000000},
///       "links": [{"from": 0, "to": 1, "latency_ms": 0.1}],
///       "ranks": [{"speed": 1, "memory_cap_bytes": 8589934592}, {"speed": 0.5}],
///       "measured": {"at": "2026-11-29T09:30:58.123Z", "rounds": 8, "spread": 0.013},
///       "ties": [{"owner": {"layer": 0, "parameter": "token.weight"},
///                 "copy": {"layer": 9, "parameter": "output.weight"}, "bytes": 3145728}]
///     }
///
/// Needed are `layers` and in each `name` and either `like`, the name of an earlier layer that it is alike, or `sizes`,
/// ascending, with the three times. `input_needs_gradient` is true if it is left out. The time of a pass is above 0
/// for the layer as a whole. What is left out is 0; `gradient_bytes` as large as the parameters, `backward_ms` the sum
/// of the two parts, `weight_activation_share` and `speed` 1, links immediate and unlimited, memory uncapped, no
/// parameter tied. `model` and `machine` are any texts and numbers. Messages call the form by the file that it is in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/base/ids.h"
#include "penstock/base/units.h"
#include "penstock/base/wall_time.h"
#include "penstock/cost/cost.h"

namespace penstock {

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
  /// As `backward_workspace`, where another layer of the stage follows, from which the output's gradient comes: that
  /// gradient is a part of it, as long as it is held. 0: held to the end.
  Bytes inner_workspace = {};
  Bytes input_workspace = {};        ///< as `backward_workspace`, of an `I`; 0: as in one piece
  Bytes inner_input_workspace = {};  ///< as `inner_workspace`, of an `I`; 0: held to the end
  /// The gradients that an `I` keeps for its `W`, without the output's where that came from another rank.
  Bytes deferred = {};
  Bytes inner_deferred = {};    ///< the same where another layer follows, the output's among them; 0: with it
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
  std::optional<std::size_t> like = {};  ///< the earlier layer that it is alike, and equal to in all of the above

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
  Milliseconds action_overhead = {};  ///< of each action of a rank, beside its layers
  Milliseconds step_overhead = {};    ///< of each step, beside passes, updates and exchanges
  LinkCost default_link = {};         ///< between every pair of ranks that `links` does not name
  std::map<RankPair, LinkCost> links = {};
  std::vector<RankCost> ranks = {};  ///< by rank; empty: all alike and without caps
  std::vector<LayerTie> ties = {};
  std::optional<Measurement> measured = std::nullopt;  ///< nothing if it is not known

  friend bool operator==(const LayerCosts&, const LayerCosts&) = default;
};

/// \throws Error (BadInput) naming the first value that is out of range by its JSON path: what is negative or not
/// finite, a layer whose passes take no time, sizes that do not ascend, `like` that is not so, ties of layers that
/// do not exist, ties within one layer or larger than its parameters, and a copy that has two owners or is an owner.
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
/// "model" or "machine". \param source how the message calls the costs. \throws Error (BadInput) that names the key
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

/// How a stage is run.
struct StageRun {
  bool recomputed = false;     ///< its layers keep only their inputs and run again in the backward
  bool split_backward = true;  ///< as `I` and `W`; in one piece otherwise, and then only the sum of the two is right
  double speed = 1;            ///< of its rank
  bool sent = true;            ///< its output goes to another rank, and not to a stage of its own
};

/// All layers at one microbatch size, ready to be asked for any stage. Immutable, thread-safe.
class LayersAtSize {
 public:
  /// Interpolates between the measured sizes. \param samples may be a fraction: the mean of microbatches of two sizes,
  /// as which times are exact. Sizes in bytes are those of the next whole number. \throws Error (BadInput) for samples
  /// that no interpolation reaches, naming the layer and its measured sizes; and for costs that `validate` refuses.
  LayersAtSize(const LayerCosts& costs, double samples);

  /// The layers from `first` up to `end`, excluded, as one stage. O(1) but for the workspaces, which are looked up.
  [[nodiscard]] StageCost stage(std::size_t first, std::size_t end, const StageRun& run) const;
  /// The time of one microbatch on that stage, forward and backward.
  [[nodiscard]] Milliseconds time(std::size_t first, std::size_t end, const StageRun& run) const;
  /// The update of their weights.
  [[nodiscard]] Milliseconds update(std::size_t first, std::size_t end) const;
  /// What crosses a cut after `layer`.
  [[nodiscard]] Bytes boundary_after(std::size_t layer) const { return {boundary_[layer]}; }
  [[nodiscard]] std::size_t layers() const { return sums_.size() - 1; }

 private:
  /// Of all layers before one.
  struct Sums {
    double forward = 0;
    double input_backward = 0;
    double weight_backward = 0;
    double backward = 0;
    double update = 0;
    std::int64_t activation = 0;
    std::int64_t held_for_weights = 0;
    std::int64_t deferred = 0;
    std::int64_t released_in_weights = 0;  ///< what a `W` frees while it runs
    std::int64_t input = 0;
    std::int64_t parameter = 0;
    std::int64_t gradient = 0;
    std::int64_t optimizer = 0;
  };
  /// What one layer has at the end of a stage.
  struct AtEnd {
    std::int64_t kept_output = 0;
    std::int64_t backward = 0;  ///< workspace, where the output's gradient came from another rank
    std::int64_t input_backward = 0;
    std::int64_t weight = 0;
    std::int64_t deferred = 0;
  };
  /// A workspace, and how much of the gradients is there when the first pass of a step takes it.
  struct Workspace {
    std::int64_t most = 0;
    std::int64_t gradient = 0;
  };
  /// The largest of any run of layers, by the run's first and last layer.
  class Largest {
   public:
    void fill(const std::vector<std::int64_t>& values);
    [[nodiscard]] std::int64_t of(std::size_t first, std::size_t end) const;

   private:
    std::vector<std::vector<std::int64_t>> by_power_;  ///< by power of two, then by first layer
  };

  /// Workspaces counted from the network's beginning, so that what the later layers have freed, or not taken yet, is
  /// one difference. By layer.
  struct Comparable {
    std::vector<std::int64_t> forward;
    std::vector<std::int64_t> backward;
    std::vector<std::int64_t> recomputed_forward;
    std::vector<std::int64_t> recomputed;
    std::vector<std::int64_t> input_backward;
    std::vector<std::int64_t> recomputed_input;
    std::vector<std::int64_t> weight;
  };
  struct Passed {
    Largest value;
    Largest with_gradients;  ///< beside those of the layers behind
  };

  void add_memory(const LayerAtSize& here, double weight_activation_share, Comparable& comparable);
  void fill(Passed& passed, std::vector<std::int64_t> values);
  /// The `W` of a first stage whose input needs no gradient is a whole backward. Recomputed layers are passed one by
  /// one, of which that holds for the first alone, as it was measured.
  [[nodiscard]] bool is_whole_in_weights(const StageRun& run, std::size_t first) const {
    return run.split_backward && !run.recomputed && first == 0 && !input_needs_gradient_;
  }

  /// What stays of the output of a stage that ends with `last` when it has been sent.
  [[nodiscard]] std::int64_t kept_output(const StageRun& run, std::size_t last) const {
    return run.sent && last + 1 < layers() ? at_end_[last].kept_output : 0;
  }
  /// Of a layer's activation, its input left out.
  [[nodiscard]] std::int64_t made_again(std::size_t layer) const {
    return sums_[layer + 1].activation - sums_[layer].activation - (sums_[layer + 1].input - sums_[layer].input);
  }
  [[nodiscard]] std::int64_t forward_workspace(const StageRun& run, std::size_t first, std::size_t end) const;
  [[nodiscard]] Workspace backward_workspace(const StageRun& run, std::size_t first, std::size_t end) const;
  [[nodiscard]] Workspace recomputed_workspace(std::size_t first, std::size_t end) const;
  [[nodiscard]] std::int64_t input_workspace(const StageRun& run, std::size_t first, std::size_t end) const;
  [[nodiscard]] std::int64_t recomputed_input_workspace(std::size_t first, std::size_t end) const;
  /// Of the layers but the last, with `offset`, and of the last one, which takes `last`.
  [[nodiscard]] Workspace largest(const Passed& passed, std::size_t first, std::size_t end, std::int64_t offset,
                                  std::int64_t last) const;
  void fill_activation(const StageRun& run, std::size_t first, std::size_t end, StageCost& stage) const;
  void fill_workspaces(const StageRun& run, std::size_t first, std::size_t end, StageCost& stage) const;

  std::vector<Sums> sums_;  ///< one more than layers
  std::vector<std::int64_t> boundary_;
  bool input_needs_gradient_ = true;
  std::vector<AtEnd> at_end_;
  Largest forward_;
  Largest recomputed_forward_;
  Passed backward_;
  Passed recomputed_;
  Largest input_backward_;
  Largest recomputed_input_;
  Passed weight_;
  double overhead_ = 0;
};

/// The costs where tied parameters are one object: every layer but the owner's is without the weights and the optimizer
/// state of what it shares, and every layer but the last of those that share without its gradient, which is made in the
/// last one's backward first. What a layer's optimizer keeps is shared out by bytes of parameters. No layer of the
/// result is `like` another, and it has no ties. Right only for cuts that keep all layers of a tie on one rank.
/// \throws Error (BadInput) as `validate`.
[[nodiscard]] LayerCosts with_shared_ties(LayerCosts costs);

/// How a cut is run.
struct CutRun {
  std::vector<bool> recomputed = {};     ///< by stage; empty: none
  bool split_backward = true;            ///< whether the schedule has `I` and `W`
  std::vector<std::int32_t> ranks = {};  ///< the rank of each stage; empty: stage s on rank s
};

/// The link from one rank to another. O(log of the named links).
[[nodiscard]] const LinkCost& link_between(const LayerCosts& costs, RankId from, RankId to);

/// The cost of each stage of a cut, at the speed of its rank.
/// \param layers are those of `costs` at the size of a microbatch. \param first_layers of each stage, ascending from 0.
/// \throws Error (BadInput) for what is not a cut of these layers.
[[nodiscard]] std::vector<StageCost> stages_of_cut(const LayerCosts& costs, const LayersAtSize& layers,
                                                   const std::vector<std::int64_t>& first_layers, const CutRun& run);

/// The cost of the stages of a cut, with the links and, where one is capped, the caps of the ranks.
/// \param first_layers of each stage, ascending from 0. \param samples of a microbatch, as for `LayersAtSize`.
/// \throws Error (BadInput) for what is not a cut of these layers, and as `LayersAtSize` does.
[[nodiscard]] Cost cost_of_cut(const LayerCosts& costs, const std::vector<std::int64_t>& first_layers, double samples,
                               const CutRun& run = {});

}  // namespace penstock
