/// \file
/// How weights change: SGD with momentum and AdamW, to the numbers of `torch::optim`.
///
///     penstock::OptimizerSettings settings{.kind = "sgd", .weight_decay = 0.01};
///     settings.rules = {{.names = "*.bias", .learning_rate_factor = 2}};
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"

namespace penstock {

/// How the updates of some parameters differ from those of the others: a parameter group.
struct UpdateRule {
  /// A shell's pattern (`fnmatch`) of the parameters' names in checkpoints: `layers.0.*`, `*.bias`, `layers.[0-3].*`.
  std::string names;
  std::optional<double> weight_decay = {};  ///< none: as without the rule
  double learning_rate_factor = 1;          ///< times the update's learning rate; 0 leaves the parameter as it is

  friend bool operator==(const UpdateRule&, const UpdateRule&) = default;
};

/// Whether a rule is for the parameter of that name.
[[nodiscard]] bool matches(const UpdateRule& rule, const std::string& name);

/// What an update does with a gradient.
struct OptimizerSettings {
  Worded<OptimizerKind> kind = OptimizerKind::AdamW;  ///< or its word: "adamw", "sgd"
  /// Decoupled for AdamW, added to the gradient for SGD. Acts on matrices and convolution kernels only: biases, norms
  /// and everything else of one dimension is left alone, unless a rule gives it a decay. Typical: 0.1.
  double weight_decay = 0.1;
  double momentum = 0.9;  ///< of SGD
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  /// The first rule that matches a parameter's name applies; a tied parameter goes by its owner's name. A `Pipeline`
  /// refuses a rule that matches no parameter of the network.
  std::vector<UpdateRule> rules = {};
  /// Whether a parameter in 16 bits has a copy in float32, its master. An update then changes the master, with moments
  /// in float32, and the parameter is the master rounded. Otherwise parameters are updated in their own type.
  bool masters = false;

  friend bool operator==(const OptimizerSettings&, const OptimizerSettings&) = default;
};

/// One parameter, and how rules know it.
struct UpdatedParameter {
  std::string name;           ///< as in checkpoints: "layers.0.linear.weight"
  at::Tensor tensor;          ///< shared, not copied
  std::string rules_of = {};  ///< the name that rules are matched with; empty: its own
};

/// Another library's optimizer for the parameters of one rank, in place of penstock's. Belongs to that rank's thread.
struct OutsideOptimizer {
  using Named = std::pair<std::string, at::Tensor>;

  /// One update with the gradients that the parameters hold. May leave the learning rate alone and have one of its own.
  std::function<void(double learning_rate)> update;
  /// What it keeps, to be written to checkpoints: "exp_avg.layers.0.linear.weight", what it is, without a dot, and the
  /// parameter's name.
  std::function<std::vector<Named>()> state;
  /// Takes over what `state` gave after so many updates. A tensor that the checkpoint does not hold is left out.
  std::function<void(const std::vector<Named>& state, std::int64_t updates)> resume;
};

/// Makes the optimizer of a rank, on its thread. \param parameters each once; at least one.
using MakeOptimizer = std::function<OutsideOptimizer(const std::vector<UpdatedParameter>& parameters)>;

/// The gradient with the strides of its parameter, or contiguous if those leave gaps; the same tensor if it is so
/// already. A sparse gradient becomes dense.
[[nodiscard]] at::Tensor in_layout_of(const at::Tensor& parameter, at::Tensor gradient);

/// The name of the state's tensors that count a parameter's updates: "updates.layers.0.linear.weight".
inline constexpr const char* updates_name = "updates";

/// The parameters of one rank and the state that their updates keep. Belongs to that rank's thread. As with
/// `torch::optim`, a parameter without a gradient stays as it is, and AdamW counts the updates of each. Contiguous and
/// other dense parameters in float32 and float64 are updated by libtorch's fused kernels, all others (slices, bfloat16,
/// float16) by the operations of `torch::optim` in their own dtype.
class Optimizer {
 public:
  using Named = std::pair<std::string, at::Tensor>;
  using Parameter = UpdatedParameter;

  /// \param parameters each tensor counts once, by its first name. \param outside makes what updates them instead; it
  /// has no rules, and its updates cannot be taken back. \throws Error (BadInput) for settings out of range.
  Optimizer(OptimizerSettings settings, const std::vector<Parameter>& parameters, const MakeOptimizer& outside = {});

  /// Takes the masters from the parameters once more, after those have changed.
  void renew_masters();

  /// One update with the gradients that the parameters hold; those without one stay as they are.
  void update(double learning_rate);

  /// Copies the weights and the state, for one `take_back`.
  void keep();
  /// Undoes, to the bit, all updates since `keep`, and frees the copies.
  void take_back();
  /// Frees the copies.
  void discard_kept() { kept_.clear(); }

  /// How many updates were made and not taken back, those that were resumed from among them.
  [[nodiscard]] std::int64_t updates() const { return updates_; }

  /// The state, by name ("momentum.layers.0.linear.weight"): shared tensors, to be written to a checkpoint or filled
  /// from one. AdamW's counts of updates are copies, to be given to `resume`.
  [[nodiscard]] std::vector<Named> state() const;

  /// Continues the counts of updates, after `state` has been filled from a checkpoint. \param counts those of the saved
  /// `state`, by their names; a parameter without one has had all `updates`.
  void resume(std::int64_t updates, const std::vector<Named>& counts = {});

  /// Whether another library's optimizer updates the parameters. Its state is then given to `resume_outside`, and not
  /// overwritten.
  [[nodiscard]] bool is_outside() const { return is_outside_; }
  /// \param state what the checkpoint has of it, by the names of `state`.
  void resume_outside(std::int64_t updates, const std::vector<Named>& state);

 private:
  struct Entry {
    std::string name;
    at::Tensor parameter;
    double weight_decay = 0;
    double learning_rate_factor = 1;
    at::Tensor master = {};                // undefined: the parameter is updated itself
    std::vector<at::Tensor> moments = {};  // SGD: momentum; AdamW: first and second
    std::int64_t updates = 0;
    bool fused = true;

    [[nodiscard]] at::Tensor updated() const { return master.defined() ? master : parameter; }
    [[nodiscard]] at::Tensor gradient() const;
  };
  // What one call of a fused kernel can update.
  struct Group {
    double weight_decay = 0;
    double learning_rate_factor = 1;
    at::ScalarType dtype = at::kFloat;
    std::vector<std::size_t> entries = {};
  };

  void add(const Parameter& parameter);
  void update_fused(const Group& group, double learning_rate);
  void update_plainly(Entry& entry, double learning_rate) const;
  [[nodiscard]] std::vector<at::Tensor> everything() const;  // weights and state

  OptimizerSettings settings_;
  bool is_outside_ = false;
  std::optional<OutsideOptimizer> outside_;  // none also where there is no parameter
  std::vector<Entry> entries_;
  std::vector<Group> groups_;        // of the fused entries
  std::vector<std::size_t> others_;  // the rest
  std::int64_t updates_ = 0;
  std::vector<at::Tensor> kept_;  // as `everything`
  std::int64_t kept_updates_ = 0;
  std::vector<std::int64_t> kept_counts_;  // by entry
};

/// A learning rate for each step: a linear warm-up to `peak`, then a cosine down to `peak` × `final_share` at `steps`.
struct LearningRate {
  double peak = 1e-3;
  std::int64_t warmup = 0;
  std::int64_t steps = 1;
  double final_share = 0.1;

  /// \param step counted from 0.
  [[nodiscard]] double at(std::int64_t step) const;
};

}  // namespace penstock
