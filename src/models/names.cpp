#include "models/names.h"

#include <fmt/format.h>
#include <numeric>
#include <string_view>
#include <utility>

namespace penstock {
namespace {

using Shape = std::vector<std::int64_t>;

std::int64_t rows_of(const Shape& shape) {
  if (shape.size() == 1) return shape[0];
  return std::accumulate(shape.begin(), shape.end() - 1, std::int64_t{1}, std::multiplies<>());
}

LayerWeight one_to_one(std::string ours, const std::string& theirs, const Shape& shape) {
  return {std::move(ours), shape, {{theirs, shape, false, 0, rows_of(shape)}}};
}

class Llama {
 public:
  explicit Llama(const ModelConfig& model) : model_(model), decoder_(model.decoder) {}

  [[nodiscard]] std::vector<LayerWeight> embedding() const {
    return {one_to_one("token.weight", "model.embed_tokens.weight", {decoder_.vocabulary, decoder_.width})};
  }

  [[nodiscard]] std::vector<LayerWeight> head() const {
    const char* const output = decoder_.tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
    return {one_to_one("norm.weight", "model.norm.weight", {decoder_.width}),
            one_to_one("output.weight", output, {decoder_.vocabulary, decoder_.width})};
  }

  [[nodiscard]] std::vector<LayerWeight> block(std::int64_t block) const {
    const std::string at = fmt::format("model.layers.{}.", block);
    std::vector<LayerWeight> weights{
        one_to_one("attention_norm.weight", at + "input_layernorm.weight", {decoder_.width})};
    add_attention(weights, at + "self_attn.");
    weights.push_back(one_to_one("feed_forward_norm.weight", at + "post_attention_layernorm.weight", {decoder_.width}));
    if (has_experts(decoder_, block))
      add_experts(weights, at + (model_.family == ModelFamily::Mixtral ? "block_sparse_moe." : "mlp."));
    else
      add_feed_forward(weights, at + "mlp.");
    return weights;
  }

 private:
  void add_attention(std::vector<LayerWeight>& weights, const std::string& at) const {
    const std::int64_t queries = decoder_.heads * decoder_.head_size;
    const std::int64_t keys = decoder_.key_value_heads * decoder_.head_size;
    const std::vector<std::pair<std::string, std::int64_t>> parts{
        {"q_proj", queries}, {"k_proj", keys}, {"v_proj", keys}};
    weights.push_back(stacked("attention.qkv.weight", at, parts, ".weight", decoder_.width));
    if (decoder_.qkv_bias) weights.push_back(stacked("attention.qkv.bias", at, parts, ".bias", 0));
    if (decoder_.query_key_norms) {
      weights.push_back(one_to_one("attention.query_norm.weight", at + "q_norm.weight", {decoder_.head_size}));
      weights.push_back(one_to_one("attention.key_norm.weight", at + "k_norm.weight", {decoder_.head_size}));
    }
    weights.push_back(one_to_one("attention.projection.weight", at + "o_proj.weight", {decoder_.width, queries}));
    if (decoder_.attention_output_bias)
      weights.push_back(one_to_one("attention.projection.bias", at + "o_proj.bias", {decoder_.width}));
  }

  void add_feed_forward(std::vector<LayerWeight>& weights, const std::string& at) const {
    const std::int64_t inner = decoder_.inner_width;
    const std::vector<std::pair<std::string, std::int64_t>> parts{{"gate_proj", inner}, {"up_proj", inner}};
    weights.push_back(stacked("feed_forward.widen.weight", at, parts, ".weight", decoder_.width));
    if (decoder_.feed_forward_bias) weights.push_back(stacked("feed_forward.widen.bias", at, parts, ".bias", 0));
    weights.push_back(one_to_one("feed_forward.projection.weight", at + "down_proj.weight", {decoder_.width, inner}));
    if (decoder_.feed_forward_bias)
      weights.push_back(one_to_one("feed_forward.projection.bias", at + "down_proj.bias", {decoder_.width}));
  }

  void add_experts(std::vector<LayerWeight>& weights, const std::string& at) const {
    const ExpertSettings& experts = decoder_.experts.value();
    const bool mixtral = model_.family == ModelFamily::Mixtral;
    const std::int64_t inner = experts.inner_width;
    weights.push_back(one_to_one("feed_forward.router", at + "gate.weight", {experts.count, decoder_.width}));
    LayerWeight widen{"feed_forward.widen", {experts.count, 2 * inner, decoder_.width}, {}};
    LayerWeight projection{"feed_forward.projection", {experts.count, decoder_.width, inner}, {}};
    for (std::int64_t expert = 0; expert < experts.count; ++expert) {
      const std::string own = fmt::format("{}experts.{}.", at, expert);
      const auto named = [&](const char* mixtral_name, const char* usual_name) {
        return own + (mixtral ? mixtral_name : usual_name) + ".weight";
      };
      const Shape wide{inner, decoder_.width};
      widen.pieces.push_back({named("w1", "gate_proj"), wide, false, 2 * inner * expert, inner});
      widen.pieces.push_back({named("w3", "up_proj"), wide, false, 2 * inner * expert + inner, inner});
      projection.pieces.push_back(
          {named("w2", "down_proj"), {decoder_.width, inner}, false, decoder_.width * expert, decoder_.width});
    }
    weights.push_back(std::move(widen));
    weights.push_back(std::move(projection));
  }

  // \param columns 0: vectors.
  static LayerWeight stacked(std::string ours, const std::string& at,
                             const std::vector<std::pair<std::string, std::int64_t>>& parts, const char* suffix,
                             std::int64_t columns) {
    LayerWeight weight{std::move(ours), {0}, {}};
    if (columns > 0) weight.shape.push_back(columns);
    for (const auto& [name, rows] : parts) {
      const Shape shape = columns > 0 ? Shape{rows, columns} : Shape{rows};
      weight.pieces.push_back({at + name + suffix, shape, false, weight.shape[0], rows});
      weight.shape[0] += rows;
    }
    return weight;
  }

  const ModelConfig& model_;
  const DecoderSettings& decoder_;
};

// GPT-2 keeps its matrices as [in, out].
class Gpt2 {
 public:
  explicit Gpt2(const DecoderSettings& decoder) : decoder_(decoder) {}

  [[nodiscard]] std::vector<LayerWeight> embedding() const {
    return {one_to_one("token.weight", "transformer.wte.weight", {decoder_.vocabulary, decoder_.width}),
            one_to_one("position.weight", "transformer.wpe.weight", {decoder_.most_positions, decoder_.width})};
  }

  [[nodiscard]] std::vector<LayerWeight> head() const {
    std::vector<LayerWeight> weights;
    add_norm(weights, "norm", "transformer.ln_f");
    weights.push_back(one_to_one("output.weight", decoder_.tied_head ? "transformer.wte.weight" : "lm_head.weight",
                                 {decoder_.vocabulary, decoder_.width}));
    return weights;
  }

  [[nodiscard]] std::vector<LayerWeight> block(std::int64_t block) const {
    const std::string at = fmt::format("transformer.h.{}.", block);
    const std::int64_t width = decoder_.width;
    std::vector<LayerWeight> weights;
    add_norm(weights, "attention_norm", at + "ln_1");
    add_product(weights, "attention.qkv", at + "attn.c_attn", width, 3 * width);
    add_product(weights, "attention.projection", at + "attn.c_proj", width, width);
    add_norm(weights, "feed_forward_norm", at + "ln_2");
    add_product(weights, "feed_forward.widen", at + "mlp.c_fc", width, decoder_.inner_width);
    add_product(weights, "feed_forward.projection", at + "mlp.c_proj", decoder_.inner_width, width);
    return weights;
  }

 private:
  void add_norm(std::vector<LayerWeight>& weights, const std::string& ours, const std::string& theirs) const {
    for (const char* suffix : {".weight", ".bias"})
      weights.push_back(one_to_one(ours + suffix, theirs + suffix, {decoder_.width}));
  }

  static void add_product(std::vector<LayerWeight>& weights, const std::string& ours, const std::string& theirs,
                          std::int64_t in, std::int64_t out) {
    weights.push_back({ours + ".weight", {out, in}, {{theirs + ".weight", {in, out}, true, 0, out}}});
    weights.push_back(one_to_one(ours + ".bias", theirs + ".bias", {out}));
  }

  const DecoderSettings& decoder_;
};

template <class Names>
std::vector<LayerWeight> layer_weights(const Names& names, std::int64_t layer, std::int64_t blocks) {
  if (layer == 0) return names.embedding();
  return layer > blocks ? names.head() : names.block(layer - 1);
}

}  // namespace

std::vector<LayerWeight> weights_of_layer(const ModelConfig& model, std::int64_t layer) {
  if (model.family == ModelFamily::Gpt2) return layer_weights(Gpt2(model.decoder), layer, model.decoder.layers);
  return layer_weights(Llama(model), layer, model.decoder.layers);
}

bool may_be_ignored(const ModelConfig& model, const std::string& name) {
  const std::string_view text = name;
  if (model.decoder.tied_head && text == "lm_head.weight") return true;
  if (text.ends_with(".rotary_emb.inv_freq")) return true;
  return model.family == ModelFamily::Gpt2 && (text.ends_with(".attn.bias") || text.ends_with(".attn.masked_bias"));
}

}  // namespace penstock
