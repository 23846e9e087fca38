/// \file
/// Random numbers that depend on (seed, step, microbatch, layer) alone, so that they are the same on any number of
/// stages and can be drawn again: those of every operation of libtorch's that draws, and a dropout of our own.
///
/// A `Pipeline` opens the scopes. Outside of a pipeline this draws the same numbers:
///
///     const penstock::DrawScope scope({.seed = 1, .step = 0, .microbatch = 2, .layer = 3});
///     const at::Tensor output = torch::dropout(input, 0.1, true);
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <ATen/core/Generator.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/nn/module.h>

namespace penstock {

/// Where in a run a layer is being computed.
struct DrawPlace {
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::int64_t microbatch = 0;
  std::int64_t layer = 0;  ///< the loss draws as the layer behind the last
};

/// While it lives, random layers of this thread draw for `place`; the n-th draw within it always gives the same
/// numbers. Scopes nest.
///
/// Within a scope every operation of libtorch's that would draw from the generator which all threads share draws from
/// one of the scope's own: `torch::dropout`, `rand`, `bernoulli_`, attention with `dropout_p`, and so each module that
/// is made of them. An operation that is given another generator than the shared one keeps it, and is refused within a
/// `RecomputeScope`, where that generator would have moved on. An operation that takes no generator and is not made of
/// others that do is refused by name when it would draw. Other operations cost what they cost outside. The scope holds
/// for its thread: threads that a layer starts by itself draw from the shared generator, and are refused where libtorch
/// hands its thread's state on to them.
class DrawScope {
 public:
  explicit DrawScope(const DrawPlace& place);
  /// A scope in which nothing may be drawn: for a backward pass, whose operations run in an order of their own under
  /// every cut and schedule.
  [[nodiscard]] static DrawScope refusing() { return {}; }
  DrawScope(const DrawScope&) = delete;
  DrawScope& operator=(const DrawScope&) = delete;
  DrawScope(DrawScope&&) = delete;
  DrawScope& operator=(DrawScope&&) = delete;
  ~DrawScope();

  /// Whether anything has been drawn in this scope.
  [[nodiscard]] bool has_drawn() const { return draws_ > 0 || !generators_.empty(); }

  /// A key for the next draw of the innermost scope of this thread. \throws Error (RunFailed) where there is none, or
  /// one that refuses.
  [[nodiscard]] static std::uint64_t next_key();

  /// The innermost scope's own generator for a device: one for the whole scope, seeded when it is first asked for.
  /// \param operation that draws, for the error's text. \throws Error (RunFailed) as `next_key`.
  [[nodiscard]] static const at::Generator& generator(at::Device device, std::string_view operation);

  /// Whether the generator is the innermost scope's own, which operations hand on to those that they are made of.
  [[nodiscard]] static bool owns(const at::Generator& generator);

 private:
  DrawScope();
  static DrawScope& innermost(std::string_view operation);
  [[nodiscard]] std::uint64_t key_of(std::uint64_t draw) const;

  std::optional<DrawPlace> place_;  // none: refuses
  std::uint64_t draws_ = 0;
  std::vector<at::Generator> generators_;  // by device
  DrawScope* outer_;
  c10::impl::IncludeDispatchKeyGuard seen_;  // by what hands out the generators
};

/// Hands the scopes' generators to the operations of libraries that have been loaded since the last call, and of
/// programs: those of libtorch's own are reached from the start. `build_layer` calls it. Not thread-safe.
void reach_random_operations();

/// Zeroes each element with `probability` in training and scales the others by 1 / (1 − probability); passes everything
/// in evaluation. Any shape, any floating dtype.
class Dropout : public torch::nn::Module {
 public:
  /// \param probability in [0, 1). \throws Error (BadInput)
  explicit Dropout(double probability);
  /// The input with each value dropped with the set probability, and the kept ones scaled up; of any shape.
  [[nodiscard]] at::Tensor forward(const at::Tensor& input) const;

 private:
  double probability_;
};

}  // namespace penstock
