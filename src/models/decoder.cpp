#include "penstock/models/decoder.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/nn/module.h>

#include "penstock/nn/dropout.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/networks.h"

#include "models/adapters.h"
#include "models/attention.h"
#include "models/chunked_loss.h"
#include "models/documents.h"
#include "models/feed_forward.h"
#include "models/initial.h"
#include "models/norm.h"
#include "models/projection.h"

namespace penstock {
namespace {

class Table : public torch::nn::Module {
 public:
  Table(std::int64_t rows, std::int64_t width, double deviation, const Initial& initial)
      : weight_(register_parameter("weight", initial.normal({rows, width}, deviation))) {}

  at::Tensor forward(const at::Tensor& rows) { return at::embedding(weight_, rows); }

 private:
  at::Tensor weight_;
};

class DecoderEmbedding : public torch::nn::Module {
 public:
  DecoderEmbedding(const DecoderSettings& settings, const Initial& initial)
      : settings_(settings),
        token_(register_module("token", std::make_shared<Table>(settings.vocabulary, settings.width,
                                                                settings.initial_deviation, initial))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(settings.dropout))) {
    if (!settings.rotary)
      position_ = register_module("position", std::make_shared<Table>(settings.most_positions, settings.width,
                                                                      settings.initial_deviation, initial));
  }

  // [microbatch, length] to [microbatch, length, width]; behind it, where they are kept apart, the tokens' documents.
  Tensors forward(const at::Tensor& tokens) {
    std::int64_t first = 0;
    if (KeyValueCache* cache = CacheScope::current())
      first = std::exchange(cache->length, cache->length + tokens.size(1));
    at::Tensor embedded = token_->forward(tokens);
    const at::Tensor documents = are_apart(settings_) ? documents_of(tokens, *settings_.documents) : at::Tensor();
    if (position_) {
      const bool restart = documents.defined() && settings_.documents->positions_restart;
      embedded = embedded + position_->forward(restart ? positions_within(documents)
                                                       : at::arange(first, first + tokens.size(1), tokens.options()));
    }
    Tensors outputs{dropout_->forward(embedded)};
    if (documents.defined()) outputs.push_back(documents);
    return outputs;
  }

 private:
  DecoderSettings settings_;
  std::shared_ptr<Table> token_;
  std::shared_ptr<Table> position_;  // null where positions are rotations
  std::shared_ptr<Dropout> dropout_;
};

class DecoderBlock : public torch::nn::Module {
 public:
  // \param block from 0.
  DecoderBlock(const DecoderSettings& settings, std::int64_t block, const Initial& initial)
      : settings_(settings),
        balances_(settings.experts && settings.experts->auxiliary_loss > 0),
        attention_norm_(register_module("attention_norm", norm(settings, initial))),
        attention_(register_module(
            "attention", std::make_shared<DecoderAttention>(settings, block, output_deviation(settings), initial))),
        feed_forward_norm_(register_module("feed_forward_norm", norm(settings, initial))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(settings.dropout))) {
    if (has_experts(settings, block))
      experts_ =
          register_module("feed_forward", std::make_shared<Experts>(settings, output_deviation(settings), initial));
    else
      feed_forward_ = register_module(
          "feed_forward", std::make_shared<DecoderFeedForward>(settings, output_deviation(settings), initial));
  }

  // [microbatch, length, width] to the same; behind it the documents, where they are kept apart, and from the first
  // block with experts on the balance so far.
  Tensors forward(const Tensors& inputs) {
    const at::Tensor& input = inputs[0];
    const bool apart = are_apart(settings_);
    const at::Tensor mixed = attention_->forward(attention_norm_->forward(input), apart ? inputs.at(1) : at::Tensor());
    const at::Tensor attended = input + dropout_->forward(mixed);
    const at::Tensor normed = feed_forward_norm_->forward(attended);
    Tensors outputs = inputs;
    if (feed_forward_) {
      outputs[0] = attended + dropout_->forward(feed_forward_->forward(normed));
      return outputs;
    }
    const Routed routed = experts_->forward(normed);
    outputs[0] = attended + dropout_->forward(routed.output);
    if (!balances_) return outputs;
    if (outputs.size() == (apart ? 2 : 1))
      outputs.push_back(routed.balance);
    else
      outputs.back() = outputs.back() + routed.balance;
    return outputs;
  }

 private:
  static std::shared_ptr<Norm> norm(const DecoderSettings& settings, const Initial& initial) {
    return std::make_shared<Norm>(settings.norm, settings.width, settings.norm_epsilon, initial);
  }

  // The residual stream keeps its variance.
  static double output_deviation(const DecoderSettings& settings) {
    const double branches = settings.scaled_residuals ? 2.0 * static_cast<double>(settings.layers) : 1;
    return settings.initial_deviation / std::sqrt(branches);
  }

  DecoderSettings settings_;
  bool balances_;
  std::shared_ptr<Norm> attention_norm_;
  std::shared_ptr<DecoderAttention> attention_;
  std::shared_ptr<Norm> feed_forward_norm_;
  std::shared_ptr<Dropout> dropout_;
  std::shared_ptr<DecoderFeedForward> feed_forward_;  // this or the other
  std::shared_ptr<Experts> experts_;
};

// Whether so many tokens have more logits than are to be there at once.
bool in_chunks(const DecoderSettings& settings, std::int64_t tokens) {
  return tokens > std::max<std::int64_t>(1, settings.logits_at_once / settings.vocabulary);
}

// As autocast would take it for a matrix product here.
at::Tensor as_factor(const at::Tensor& tensor) {
  const auto device = tensor.device().type();
  return at::autocast::is_autocast_enabled(device) ? tensor.to(at::autocast::get_autocast_dtype(device)) : tensor;
}

class DecoderHead : public torch::nn::Module {
 public:
  DecoderHead(const DecoderSettings& settings, const Initial& initial)
      : settings_(settings),
        norm_(register_module("norm",
                              std::make_shared<Norm>(settings.norm, settings.width, settings.norm_epsilon, initial))),
        output_(register_module(
            "output",
            std::make_shared<Projection>(settings.width, std::vector<ProjectionPart>{{"lm_head", settings.vocabulary}},
                                         /*bias=*/false, settings.initial_deviation, std::nullopt, initial))) {}

  // [microbatch, length, width] to [microbatch, length, vocabulary], or to what logits are made of; what follows goes
  // through.
  Tensors forward(const Tensors& inputs) {
    Tensors outputs = inputs;
    outputs[0] = norm_->forward(inputs[0]);
    const std::int64_t tokens = inputs[0].size(0) * inputs[0].size(1);
    if (CacheScope::current() == nullptr && in_chunks(settings_, tokens)) {
      outputs[0] = as_factor(outputs[0]);
      outputs.insert(outputs.begin() + 1, as_factor(output_->weight()));
    } else {
      outputs[0] = output_->forward(outputs[0]);
    }
    return outputs;
  }

 private:
  DecoderSettings settings_;
  std::shared_ptr<Norm> norm_;
  std::shared_ptr<Projection> output_;
};

std::int64_t blocks_with_experts(const DecoderSettings& settings) {
  std::int64_t count = 0;
  for (std::int64_t block = 0; block < settings.layers; ++block) count += has_experts(settings, block) ? 1 : 0;
  return count;
}

// Smallest, 1 times the chosen experts, where every expert gets as many tokens as the others.
Loss add_balance(Loss loss, const at::Tensor& balance, std::int64_t rows, const ExpertSettings& experts) {
  const at::Tensor means = balance / static_cast<double>(rows);
  const at::Tensor imbalance = (means[0] * means[1]).sum() * static_cast<double>(experts.count);
  loss.sum = loss.sum + imbalance * (experts.auxiliary_loss * loss.weight);
  return loss;
}

Loss chunked_loss(const DecoderSettings& settings, const Tensors& outputs, const at::Tensor& target) {
  const std::int64_t rows = std::max<std::int64_t>(1, settings.logits_at_once / settings.vocabulary);
  return {chunked_cross_entropy(outputs.at(0).reshape({-1, settings.width}), outputs.at(1), target.reshape(-1), rows),
          static_cast<double>(target.ne(-100).sum().item<std::int64_t>())};
}

LossFunction loss_of(const DecoderSettings& settings) {
  const std::int64_t sparse = blocks_with_experts(settings);
  const bool balances = sparse > 0 && settings.experts->auxiliary_loss > 0;
  return [settings, sparse, balances](const Tensors& outputs, const Tensors& targets) {
    const std::int64_t tokens = targets.at(0).numel();
    const bool chunks = in_chunks(settings, tokens);
    Loss loss = chunks ? chunked_loss(settings, outputs, targets.at(0)) : cross_entropy(outputs, targets);
    if (balances) loss = add_balance(std::move(loss), outputs.back(), sparse * tokens, *settings.experts);
    return loss;
  };
}

// Blocks of one kind have parameters of the same shapes, and cost the same.
std::string kind_of(const DecoderSettings& settings, std::int64_t block) {
  return fmt::format("decoder block {}x{}{}{}", settings.width, settings.heads,
                     has_experts(settings, block) ? " with experts" : "",
                     window_of(settings, block) > 0 ? fmt::format(" window {}", window_of(settings, block)) : "");
}

// With adapters nothing else learns.
void keep_all_but_adapters(torch::nn::Module& module) {
  for (auto& parameter : module.named_parameters())
    if (!is_of_adapter(parameter.key())) parameter.value().set_requires_grad(false);
}

template <class Module, class... More>
Layer built(const FillLayer& fill, std::int64_t layer, const DecoderSettings& settings, const More&... more) {
  auto module = std::make_shared<Module>(settings, more..., Initial(!fill));
  if (settings.lora) keep_all_but_adapters(*module);
  if (fill) {
    const at::NoGradGuard no_graph;
    fill(layer, *module);
  }
  return Layer(module);
}

}  // namespace

Network make_decoder(const DecoderSettings& settings, const FillLayer& fill) {
  check_decoder(settings);
  Network network;
  network.layers.push_back({"embedding", "", [=] { return built<DecoderEmbedding>(fill, 0, settings); }});
  for (std::int64_t block = 0; block < settings.layers; ++block)
    network.layers.push_back(
        {"block", kind_of(settings, block), [=] { return built<DecoderBlock>(fill, block + 1, settings, block); }});
  const std::int64_t head = settings.layers + 1;
  network.layers.push_back({"head", "", [=] { return built<DecoderHead>(fill, head, settings); }});
  network.loss = loss_of(settings);
  if (settings.tied_head) network.ties.push_back({{0, "token.weight"}, {head, "output.weight"}});
  return network;
}

}  // namespace penstock
