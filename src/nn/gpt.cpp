#include <cmath>
#include <fmt/format.h>
#include <utility>

#include <torch/torch.h>

#include "penstock/nn/dropout.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/networks.h"

#include "nn/size_check.h"

namespace penstock {
namespace {

namespace nn = torch::nn;

// GPT-2's initial weights: normal with this deviation; the projections that end a residual branch are scaled down with
// the depth so that the residual stream keeps its variance.
constexpr double initial_deviation = 0.02;

nn::Linear linear(std::int64_t in, std::int64_t out, double deviation, bool bias = true) {
  nn::Linear layer(nn::LinearOptions(in, out).bias(bias));
  nn::init::normal_(layer->weight, 0, deviation);
  if (bias) nn::init::zeros_(layer->bias);
  return layer;
}

// libtorch's own forward adds the bias in a pass of its own where the input has three dimensions.
at::Tensor through(const nn::Linear& layer, const at::Tensor& input) {
  return at::linear(input, layer->weight, layer->bias);
}

nn::Embedding embedding(std::int64_t count, std::int64_t width) {
  nn::Embedding layer(count, width);
  nn::init::normal_(layer->weight, 0, initial_deviation);
  return layer;
}

class Embedding : public nn::Module {
 public:
  explicit Embedding(const GptSettings& settings)
      : token_(register_module("token", embedding(settings.vocabulary, settings.width))),
        position_(register_module("position", embedding(settings.context, settings.width))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(settings.dropout))) {}

  // [microbatch, context] to [microbatch, context, width]
  at::Tensor forward(const at::Tensor& tokens) {
    std::int64_t first = 0;
    if (KeyValueCache* cache = CacheScope::current())
      first = std::exchange(cache->length, cache->length + tokens.size(1));
    const at::Tensor positions = at::arange(first, first + tokens.size(1), tokens.options());
    return dropout_->forward(token_->forward(tokens) + position_->forward(positions));
  }

 private:
  nn::Embedding token_;
  nn::Embedding position_;
  std::shared_ptr<Dropout> dropout_;
};

class Attention : public nn::Module {
 public:
  Attention(const GptSettings& settings, double residual_deviation)
      : heads_(settings.heads),
        qkv_(register_module("qkv", linear(settings.width, 3 * settings.width, initial_deviation))),
        projection_(register_module("projection", linear(settings.width, settings.width, residual_deviation))) {}

  // [microbatch, context, width] to the same
  at::Tensor forward(const at::Tensor& input) {
    const auto microbatch = input.size(0);
    const auto context = input.size(1);
    const auto width = input.size(2);
    // [3, microbatch, heads, context, width / heads]
    const at::Tensor qkv =
        through(qkv_, input).view({microbatch, context, 3, heads_, width / heads_}).permute({2, 0, 3, 1, 4});
    // One node for all three: an index for each would fill the gradients of the others with zeros.
    const std::vector<at::Tensor> parts = qkv.unbind(0);
    const at::Tensor& queries = parts[0];
    const at::Tensor& keys = parts[1];
    const at::Tensor& values = parts[2];
    KeyValueCache* cache = CacheScope::current();
    const bool continues = cache != nullptr && cache->length > 0;
    if (cache != nullptr) remember(*cache, keys, values);
    const at::Tensor mixed =
        continues ? attend_to_cache(queries, cache->keys, cache->values)
                  : at::scaled_dot_product_attention(queries, keys, values, {}, /*dropout_p=*/0, /*is_causal=*/true);
    return through(projection_, mixed.transpose(1, 2).reshape({microbatch, context, width}));
  }

 private:
  // The new tokens see all that came before and, of each other, what came earlier.
  static at::Tensor attend_to_cache(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
    const std::int64_t added = queries.size(2);
    const std::int64_t length = keys.size(2);
    const at::Tensor visible = at::ones({added, length}, queries.options().dtype(at::kBool)).tril(length - added);
    return at::scaled_dot_product_attention(queries, keys, values, visible);
  }

  static void remember(KeyValueCache& cache, const at::Tensor& keys, const at::Tensor& values) {
    cache.keys = cache.length == 0 ? keys : at::cat({cache.keys, keys}, 2);
    cache.values = cache.length == 0 ? values : at::cat({cache.values, values}, 2);
    cache.length += keys.size(2);
  }

  std::int64_t heads_;
  nn::Linear qkv_;
  nn::Linear projection_;
};

class FeedForward : public nn::Module {
 public:
  FeedForward(const GptSettings& settings, double residual_deviation)
      : widen_(register_module("widen", linear(settings.width, 4 * settings.width, initial_deviation))),
        projection_(register_module("projection", linear(4 * settings.width, settings.width, residual_deviation))) {}

  at::Tensor forward(const at::Tensor& input) { return through(projection_, at::gelu(through(widen_, input))); }

 private:
  nn::Linear widen_;
  nn::Linear projection_;
};

class Block : public nn::Module {
 public:
  explicit Block(const GptSettings& settings) : Block(settings, residual_deviation(settings)) {}

  // [microbatch, context, width] to the same
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor attended = input + dropout_->forward(attention_->forward(attention_norm_->forward(input)));
    return attended + dropout_->forward(feed_forward_->forward(feed_forward_norm_->forward(attended)));
  }

 private:
  Block(const GptSettings& settings, double deviation)
      : attention_norm_(register_module("attention_norm", nn::LayerNorm(nn::LayerNormOptions({settings.width})))),
        attention_(register_module("attention", std::make_shared<Attention>(settings, deviation))),
        feed_forward_norm_(register_module("feed_forward_norm", nn::LayerNorm(nn::LayerNormOptions({settings.width})))),
        feed_forward_(register_module("feed_forward", std::make_shared<FeedForward>(settings, deviation))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(settings.dropout))) {}

  static double residual_deviation(const GptSettings& settings) {
    return initial_deviation / std::sqrt(2.0 * static_cast<double>(settings.layers));
  }

  nn::LayerNorm attention_norm_;
  std::shared_ptr<Attention> attention_;
  nn::LayerNorm feed_forward_norm_;
  std::shared_ptr<FeedForward> feed_forward_;
  std::shared_ptr<Dropout> dropout_;
};

class TokenHead : public nn::Module {
 public:
  explicit TokenHead(const GptSettings& settings)
      : norm_(register_module("norm", nn::LayerNorm(nn::LayerNormOptions({settings.width})))),
        output_(register_module("output", linear(settings.width, settings.vocabulary, initial_deviation, false))) {}

  // [microbatch, context, width] to [microbatch, context, vocabulary]
  at::Tensor forward(const at::Tensor& input) { return through(output_, norm_->forward(input)); }

 private:
  nn::LayerNorm norm_;
  nn::Linear output_;
};

}  // namespace

Network make_gpt(const GptSettings& settings) {
  require_positive("layers", settings.layers);
  require_positive("width", settings.width);
  require_positive("context", settings.context);
  require_positive("vocabulary", settings.vocabulary);
  require_divides("heads", settings.heads, "width", settings.width);
  Network network;
  network.layers.push_back({"embedding", "", [settings] { return Layer(std::make_shared<Embedding>(settings)); }});
  const std::string block_kind = fmt::format("gpt block {}x{}", settings.width, settings.heads);
  for (std::int64_t block = 0; block < settings.layers; ++block)
    network.layers.push_back({"block", block_kind, [settings] { return Layer(std::make_shared<Block>(settings)); }});
  network.layers.push_back({"head", "", [settings] { return Layer(std::make_shared<TokenHead>(settings)); }});
  network.loss = [](const Tensors& outputs, const Tensors& targets) { return cross_entropy(outputs, targets); };
  if (settings.tied_head) network.ties.push_back({{0, "token.weight"}, {settings.layers + 1, "output.weight"}});
  return network;
}

}  // namespace penstock
