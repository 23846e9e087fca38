#include "penstock/diagnosis/audit.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/memory.h"
#include "penstock/exec/stage.h"
#include "penstock/nn/dropout.h"
#include "penstock/nn/precision.h"
#include "penstock/transport/layout.h"

namespace penstock {
namespace {

using Named = std::pair<std::string, at::Tensor>;

// What one way of running the microbatches leaves.
struct Outcome {
  std::vector<double> losses;
  std::vector<std::vector<Tensors>> outputs;  // by layer and microbatch, where they are known
  std::vector<std::vector<Named>> gradients;  // by layer
};

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

at::Tensor copied(const at::Tensor& tensor) { return tensor.defined() ? tensor.detach().clone() : tensor; }

// A boundary as it arrives on another rank.
Tensors as_message(const Tensors& tensors) {
  Tensors message;
  for (const at::Tensor& tensor : tensors) {
    message.push_back(copy_in_same_layout(tensor, at::kCPU));
    if (tensor.defined() && tensor.requires_grad()) message.back().requires_grad_();
  }
  return message;
}

Tensors inputs_of(const Microbatch& microbatch) {
  Tensors inputs;
  for (const at::Tensor& input : microbatch.inputs) inputs.push_back(input.defined() ? input.detach() : input);
  return inputs;
}

double relative_difference(const at::Tensor& expected, const at::Tensor& got) {
  if (!expected.defined() || !got.defined() || expected.sizes() != got.sizes()) return 1;
  const at::Tensor wanted = expected.to(at::kDouble);
  const auto difference = (wanted - got.to(at::kDouble)).norm().item<double>();
  const auto size = wanted.norm().item<double>();
  return size > 0 ? difference / size : difference;
}

bool same_bits(const at::Tensor& expected, const at::Tensor& got) {
  if (expected.defined() != got.defined()) return false;
  return !expected.defined() || (expected.scalar_type() == got.scalar_type() && at::equal(expected, got));
}

// All stages of one way, and what runs them.
class Auditor {
 public:
  Auditor(const Network& network, const std::vector<Microbatch>& microbatches, const AuditSettings& settings)
      : network_(network), microbatches_(microbatches), settings_(settings) {
    for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
      LayerAudit found;
      found.layer = static_cast<std::int64_t>(layer);
      found.name = network.layers[layer].name;
      report_.layers.push_back(std::move(found));
    }
  }

  AuditReport run() {
    try {
      check_network(network_);
    } catch (const Error& error) {
      report_.refused = error.what();
      return report_;
    }
    const std::optional<Outcome> whole = attempt([this] { return run_one_stage(AuditedWay::Whole); });
    if (!whole) return report_;
    const std::optional<Outcome> plain = attempt([this] { return run_plainly(); });
    if (!plain) return report_;
    compare(AuditedWay::Whole, *plain, *whole);
    for (const AuditedWay way : {AuditedWay::Split, AuditedWay::Recomputed})
      if (const auto outcome = attempt([&] { return run_one_stage(way); })) compare(way, *plain, *outcome);
    if (const auto outcome = attempt([this] { return run_cut(); })) compare(AuditedWay::Apart, *plain, *outcome);
    return report_;
  }

 private:
  [[nodiscard]] std::size_t layers() const { return network_.layers.size(); }
  LayerAudit& found(std::int64_t layer) { return report_.layers.at(static_cast<std::size_t>(layer)); }

  // What is thrown becomes part of the report.
  template <class Way>
  std::optional<Outcome> attempt(const Way& way) {
    current_.reset();
    try {
      return way();
    } catch (const c10::Error& error) {
      refuse(first_line(error.what_without_backtrace()));
    } catch (const std::exception& error) {
      refuse(first_line(error.what()));
    } catch (...) {
      refuse("it threw something that is no std::exception");
    }
    return std::nullopt;
  }

  void refuse(const std::string& reason) {
    std::string& where = current_ ? found(*current_).refused : report_.refused;
    if (where.empty()) where = reason;
  }

  [[nodiscard]] Layer build(std::int64_t layer) {
    current_ = layer;
    Layer built = build_layer(network_, layer, settings_.seed, at::kCPU);
    // They may be there in a module that is shared with a layer built before.
    for (const at::Tensor& parameter : built.module().parameters()) parameter.mutable_grad().reset();
    current_.reset();
    return built;
  }

  [[nodiscard]] Stage make_stage(std::int64_t first, std::int64_t end, bool recompute) {
    StageParts parts;
    parts.stage = {static_cast<std::int32_t>(first)};
    parts.first_layer = first;
    for (std::int64_t layer = first; layer < end; ++layer) parts.layers.push_back(build(layer));
    if (end == static_cast<std::int64_t>(layers())) parts.loss = network_.loss;
    parts.skips = network_.skips;
    parts.seed = settings_.seed;
    parts.precision = settings_.precision;
    parts.recompute.assign(parts.layers.size(), recompute);
    Stage stage(std::move(parts));
    stage.begin({.microbatches = static_cast<int>(microbatches_.size())});
    return stage;
  }

  template <class Pass>
  auto in(Stage& stage, const Pass& pass) {
    try {
      return pass();
    } catch (...) {
      current_ = stage.current_layer();
      throw;
    }
  }

  void take_gradients(const Stage& stage, Outcome& outcome) const {
    outcome.gradients.resize(layers());
    for (std::size_t index = 0; index < stage.layers().size(); ++index)
      for (const auto& named : stage.layers()[index].module().named_parameters())
        outcome.gradients[static_cast<std::size_t>(stage.first_layer()) + index].emplace_back(
            named.key(), copied(named.value().grad()));
  }

  Outcome run_one_stage(AuditedWay way) {
    Stage stage = make_stage(0, static_cast<std::int64_t>(layers()), way == AuditedWay::Recomputed);
    if (way == AuditedWay::Whole) find_shared(stage);
    const auto count = static_cast<std::int32_t>(microbatches_.size());
    const auto forward = [&](std::int32_t microbatch) {
      const Microbatch& of = microbatches_[static_cast<std::size_t>(microbatch)];
      static_cast<void>(in(stage, [&] { return stage.forward({microbatch}, inputs_of(of), of.targets); }));
    };
    // In the split way W of a microbatch comes behind I of the next.
    for (std::int32_t microbatch = 0; microbatch < count; ++microbatch) {
      forward(microbatch);
      if (way != AuditedWay::Split) {
        in(stage, [&] { return stage.backward({microbatch}, {}); });
        continue;
      }
      in(stage, [&] { return stage.input_backward({microbatch}, {}); });
      if (microbatch > 0) in(stage, [&] { stage.weight_backward({microbatch - 1}); });
    }
    if (way == AuditedWay::Split) in(stage, [&] { stage.weight_backward({count - 1}); });
    Outcome outcome;
    for (std::int32_t microbatch = 0; microbatch < count; ++microbatch)
      outcome.losses.push_back(stage.loss({microbatch}).sum.item<double>());
    take_gradients(stage, outcome);
    if (way == AuditedWay::Whole)
      for (LayerAudit& layer : report_.layers) layer.works_in_place = stage.changes_inputs(layer.layer);
    return outcome;
  }

  // All microbatches go forward before the first goes back.
  Outcome run_cut() {
    std::vector<Stage> stages;
    stages.reserve(layers());
    for (std::int64_t layer = 0; layer < static_cast<std::int64_t>(layers()); ++layer)
      stages.push_back(make_stage(layer, layer + 1, false));
    Outcome outcome;
    outcome.outputs.resize(layers());
    const auto count = static_cast<std::int32_t>(microbatches_.size());
    std::vector<Tensors> boundaries;  // in front of each stage, of the first microbatch
    for (std::int32_t microbatch = 0; microbatch < count; ++microbatch) {
      const Microbatch& of = microbatches_[static_cast<std::size_t>(microbatch)];
      Tensors flow = inputs_of(of);
      for (std::size_t layer = 0; layer < stages.size(); ++layer) {
        if (microbatch == 0) boundaries.push_back(as_message(flow));
        flow = in(stages[layer], [&] { return stages[layer].forward({microbatch}, std::move(flow), of.targets); });
        flow = as_message(flow);
        keep_outputs(flow, outcome.outputs[layer]);
      }
    }
    std::vector<Tensors> arrived(stages.size());  // gradients at each stage, of the first microbatch
    for (std::int32_t microbatch = 0; microbatch < count; ++microbatch) {
      Tensors gradients;
      for (std::size_t layer = stages.size(); layer-- > 0;) {
        if (microbatch == 0) arrived[layer] = as_message(gradients);
        gradients = in(stages[layer], [&] { return stages[layer].backward({microbatch}, std::move(gradients)); });
        gradients = as_message(gradients);
      }
    }
    for (std::int32_t microbatch = 0; microbatch < count; ++microbatch)
      outcome.losses.push_back(stages.back().loss({microbatch}).sum.item<double>());
    for (std::size_t layer = 0; layer < stages.size(); ++layer) {
      take_gradients(stages[layer], outcome);
      find_leak(stages[layer], boundaries[layer], arrived[layer]);
    }
    return outcome;
  }

  static void keep_outputs(const Tensors& boundary, std::vector<Tensors>& layer_outputs) {
    Tensors copies;
    for (const at::Tensor& tensor : boundary) copies.push_back(copied(tensor));
    layer_outputs.push_back(std::move(copies));
  }

  // The same microbatch through one layer again and again: what it holds more each time.
  void find_leak(Stage& stage, const Tensors& boundary, const Tensors& gradients) {
    constexpr int rounds = 4;
    const MemoryMeter memory;
    Bytes before;
    Bytes least{std::numeric_limits<std::int64_t>::max()};
    for (int round = 0; round < rounds; ++round) {
      stage.begin({.microbatches = 1});
      in(stage, [&] { return stage.forward({0}, as_message(boundary), microbatches_.front().targets); });
      in(stage, [&] { return stage.backward({0}, as_message(gradients)); });
      stage.begin({.microbatches = 1});
      // The first rounds make what is kept once: gradients, and copies of buffers.
      if (round > 1) least = std::min(least, memory.held() - before);
      before = memory.held();
    }
    if (least.count > 0) found(stage.first_layer()).leak = least;
  }

  // Layers that are not built by the executor, on autograd alone.
  Outcome run_plainly() {
    std::vector<Layer> built;
    built.reserve(layers());
    for (std::int64_t layer = 0; layer < static_cast<std::int64_t>(layers()); ++layer) built.push_back(build(layer));
    Outcome outcome;
    outcome.outputs.resize(layers());
    for (std::size_t microbatch = 0; microbatch < microbatches_.size(); ++microbatch) {
      const Tensors outputs = forward_plainly(built, static_cast<std::int64_t>(microbatch), outcome);
      current_.reset();
      const DrawScope draws(
          {settings_.seed, 0, static_cast<std::int64_t>(microbatch), static_cast<std::int64_t>(layers())});
      const Loss loss = network_.loss(outputs, microbatches_[microbatch].targets);
      outcome.losses.push_back(loss.sum.item<double>());
      if (loss.sum.requires_grad()) loss.sum.backward();
    }
    outcome.gradients.resize(layers());
    for (std::size_t layer = 0; layer < built.size(); ++layer)
      for (const auto& named : built[layer].module().named_parameters())
        outcome.gradients[layer].emplace_back(named.key(), copied(named.value().grad()));
    return outcome;
  }

  Tensors forward_plainly(const std::vector<Layer>& built, std::int64_t microbatch, Outcome& outcome) {
    const PrecisionScope precision(settings_.precision, at::kCPU);
    Tensors flow = inputs_of(microbatches_[static_cast<std::size_t>(microbatch)]);
    std::map<std::pair<std::int64_t, std::int64_t>, at::Tensor> skipped;  // by layer and output
    keep_skipped(-1, flow, skipped);
    for (std::int64_t layer = 0; layer < static_cast<std::int64_t>(built.size()); ++layer) {
      current_ = layer;
      // Each reader of a tensor has a name of its own for it, so that gradients add up reader by reader.
      for (std::size_t output = 0; output < flow.size(); ++output)
        if (skipped.contains({layer - 1, static_cast<std::int64_t>(output)})) flow[output] = at::alias(flow[output]);
      for (const Skip& skip : network_.skips)
        if (skip.to == layer) flow.push_back(at::alias(skipped.at({skip.from, skip.output})));
      if (found(layer).works_in_place)
        for (at::Tensor& tensor : flow)
          if (tensor.defined()) tensor = tensor.clone();
      flow = pass_plainly(built[static_cast<std::size_t>(layer)], layer, microbatch, flow);
      keep_outputs(flow, outcome.outputs[static_cast<std::size_t>(layer)]);
      keep_skipped(layer, flow, skipped);
    }
    return flow;
  }

  void keep_skipped(std::int64_t layer, const Tensors& flow,
                    std::map<std::pair<std::int64_t, std::int64_t>, at::Tensor>& skipped) const {
    for (const Skip& skip : network_.skips)
      if (skip.from == layer) skipped[{layer, skip.output}] = flow.at(static_cast<std::size_t>(skip.output));
  }

  Tensors pass_plainly(const Layer& layer, std::int64_t index, std::int64_t microbatch, const Tensors& inputs) {
    LayerAudit& facts = found(index);
    std::vector<Named> before;
    for (const auto& buffer : layer.module().named_buffers())
      if (buffer.value().defined()) before.emplace_back(buffer.key(), copied(buffer.value()));
    const DrawScope draws({settings_.seed, 0, microbatch, index});
    Tensors outputs = layer.forward(inputs);
    facts.is_random = facts.is_random || draws.has_drawn();
    const auto buffers = layer.module().named_buffers();
    for (const auto& [name, value] : before)
      if (!same_bits(value, buffers[name]) && std::ranges::find(facts.buffers, name) == facts.buffers.end())
        facts.buffers.push_back(name);
    const auto is_floating = [](const at::Tensor& tensor) { return tensor.defined() && tensor.is_floating_point(); };
    const auto input = std::ranges::find_if(inputs, is_floating);
    if (input != inputs.end())
      facts.changes_dtype = facts.changes_dtype || std::ranges::any_of(outputs, [&](const at::Tensor& output) {
                              return is_floating(output) && output.scalar_type() != input->scalar_type();
                            });
    return outputs;
  }

  // Parameters that are one object, or lie in one memory, and those that are tied.
  void find_shared(const Stage& stage) {
    std::map<const void*, std::pair<std::int64_t, std::string>> seen;
    for (std::size_t layer = 0; layer < stage.layers().size(); ++layer) {
      for (const auto& named : stage.layers()[layer].module().named_parameters()) {
        const void* memory = named.value().storage().unsafeGetStorageImpl();
        const auto [first, fresh] = seen.try_emplace(memory, static_cast<std::int64_t>(layer), named.key());
        if (fresh) continue;
        const auto& [other, name] = first->second;
        LayerAudit& facts = found(static_cast<std::int64_t>(layer));
        facts.shared.push_back(fmt::format("{} is layer {}'s {}, the same object", named.key(), other, name));
        if (other != facts.layer && facts.refused.empty())
          facts.refused = fmt::format(
              "its {} is the same object as layer {}'s {}; give each layer its own and name them "
              "in Network::ties",
              named.key(), other, name);
      }
    }
    for (const Tie& tie : network_.ties)
      if (tie.copy.layer >= 0 && tie.copy.layer < static_cast<std::int64_t>(layers()))
        found(tie.copy.layer)
            .shared.push_back(
                fmt::format("{} is tied to layer {}'s {}", tie.copy.name, tie.owner.layer, tie.owner.name));
  }

  void compare(AuditedWay way, const Outcome& expected, const Outcome& got) {
    for (std::size_t microbatch = 0; microbatch < expected.losses.size(); ++microbatch)
      if (expected.losses[microbatch] != got.losses[microbatch])
        report_.differences.push_back({way, fmt::format("loss of microbatch {}", microbatch),
                                       std::abs(got.losses[microbatch] - expected.losses[microbatch]) /
                                           std::max(std::abs(expected.losses[microbatch]), 1e-300)});
    for (std::size_t layer = 0; layer < layers(); ++layer) {
      LayerAudit& facts = report_.layers[layer];
      if (!got.outputs.empty()) compare_outputs(way, expected.outputs[layer], got.outputs[layer], facts);
      for (std::size_t index = 0; index < expected.gradients[layer].size(); ++index) {
        const auto& [name, gradient] = expected.gradients[layer][index];
        const at::Tensor& other = got.gradients[layer].at(index).second;
        if (!same_bits(gradient, other))
          facts.differences.push_back({way, "gradient of " + name, relative_difference(gradient, other)});
      }
    }
  }

  // Behind a layer's own outputs a boundary carries skips, which are other layers'.
  static void compare_outputs(AuditedWay way, const std::vector<Tensors>& expected, const std::vector<Tensors>& got,
                              LayerAudit& facts) {
    for (std::size_t microbatch = 0; microbatch < expected.size(); ++microbatch)
      for (std::size_t output = 0; output < expected[microbatch].size() && output < got[microbatch].size(); ++output)
        if (!same_bits(expected[microbatch][output], got[microbatch][output]))
          facts.differences.push_back({way, fmt::format("output {} of microbatch {}", output, microbatch),
                                       relative_difference(expected[microbatch][output], got[microbatch][output])});
  }

  const Network& network_;
  const std::vector<Microbatch>& microbatches_;
  AuditSettings settings_;
  AuditReport report_;
  std::optional<std::int64_t> current_;  // the layer that is being built or run
};

}  // namespace

AuditReport audit(const Network& network, const std::vector<Microbatch>& microbatches, const AuditSettings& settings) {
  if (microbatches.size() < 2)
    throw bad_input(fmt::format("{} to audit with", counted(std::ssize(microbatches), "microbatch")), "at least two",
                    "give two small ones");
  return Auditor(network, microbatches, settings).run();
}

AuditReport audit(const Network& network, const Minibatch& minibatch, int microbatches, const AuditSettings& settings) {
  return audit(network, split_minibatch(minibatch, microbatches), settings);
}

}  // namespace penstock
