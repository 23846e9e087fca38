#include "models/attention.h"

#include <vector>

#include <ATen/ATen.h>

#include "models/documents.h"

namespace penstock {
namespace {

void remember(KeyValueCache& cache, const at::Tensor& keys, const at::Tensor& values) {
  cache.keys = cache.length == 0 ? keys : at::cat({cache.keys, keys}, 2);
  cache.values = cache.length == 0 ? values : at::cat({cache.values, values}, 2);
  cache.length += keys.size(2);
}

// [microbatch, groups, length, head size] to as many heads as there are queries for, each group several times in a row.
at::Tensor repeated(const at::Tensor& grouped, std::int64_t heads) {
  const std::int64_t groups = grouped.size(1);
  if (groups == heads) return grouped;
  const auto microbatch = grouped.size(0);
  const auto length = grouped.size(2);
  const auto size = grouped.size(3);
  return grouped.unsqueeze(2)
      .expand({microbatch, groups, heads / groups, length, size})
      .reshape({microbatch, heads, length, size});
}

bool has_gpt2_names(const DecoderSettings& settings) { return settings.matrix_names == MatrixNames::Gpt2; }

std::vector<ProjectionPart> qkv_parts(const DecoderSettings& settings) {
  const std::int64_t queries = settings.heads * settings.head_size;
  const std::int64_t keys = settings.key_value_heads * settings.head_size;
  if (has_gpt2_names(settings)) return {{"c_attn", queries + 2 * keys}};
  return {{"q_proj", queries}, {"k_proj", keys}, {"v_proj", keys}};
}

}  // namespace

DecoderAttention::DecoderAttention(const DecoderSettings& settings, std::int64_t block, double output_deviation,
                                   const Initial& initial)
    : heads_(settings.heads),
      key_value_heads_(settings.key_value_heads),
      head_size_(settings.head_size),
      window_(window_of(settings, block)),
      positions_restart_(settings.documents && settings.documents->positions_restart),
      qkv_(register_module("qkv", std::make_shared<Projection>(settings.width, qkv_parts(settings), settings.qkv_bias,
                                                               settings.initial_deviation, settings.lora, initial))) {
  if (settings.query_key_norms) {
    const auto norm = [&] {
      return std::make_shared<Norm>(NormKind::RmsNorm, head_size_, settings.norm_epsilon, initial);
    };
    query_norm_ = register_module("query_norm", norm());
    key_norm_ = register_module("key_norm", norm());
  }
  if (settings.rotary) rotary_.emplace(*settings.rotary, head_size_);
  projection_ = register_module(
      "projection", std::make_shared<Projection>(
                        heads_ * head_size_,
                        std::vector<ProjectionPart>{{has_gpt2_names(settings) ? "c_proj" : "o_proj", settings.width}},
                        settings.attention_output_bias, output_deviation, settings.lora, initial));
}

at::Tensor DecoderAttention::forward(const at::Tensor& input, const at::Tensor& documents) {
  const auto microbatch = input.size(0);
  const auto length = input.size(1);
  const std::vector<at::Tensor> parts = qkv_->forward(input).split_with_sizes(
      {heads_ * head_size_, key_value_heads_ * head_size_, key_value_heads_ * head_size_}, -1);
  const auto by_head = [&](const at::Tensor& features, std::int64_t heads, const std::shared_ptr<Norm>& norm) {
    const at::Tensor split = features.reshape({microbatch, length, heads, head_size_});
    return (norm ? norm->forward(split) : split).transpose(1, 2);
  };
  at::Tensor queries = by_head(parts[0], heads_, query_norm_);
  at::Tensor keys = by_head(parts[1], key_value_heads_, key_norm_);
  at::Tensor values = by_head(parts[2], key_value_heads_, nullptr);
  KeyValueCache* cache = CacheScope::current();
  if (rotary_ && documents.defined() && positions_restart_)
    std::tie(queries, keys) = rotary_->rotate(queries, keys, positions_within(documents));
  else if (rotary_)
    std::tie(queries, keys) = rotary_->rotate(queries, keys, cache != nullptr ? cache->length : 0);
  if (cache != nullptr) {
    remember(*cache, keys, values);
    keys = cache->keys;
    values = cache->values;
  }
  const at::Tensor mixed = attend(queries, repeated(keys, heads_), repeated(values, heads_), documents);
  return projection_->forward(mixed.transpose(1, 2).reshape({microbatch, length, heads_ * head_size_}));
}

// The queries are those of the last tokens; each sees what came before it, as far back as the window reaches.
at::Tensor DecoderAttention::attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                    const at::Tensor& documents) const {
  const std::int64_t added = queries.size(2);
  const std::int64_t length = keys.size(2);
  const bool narrowed = window_ > 0 && window_ < length;
  if (added == length && !narrowed && !documents.defined())
    return at::scaled_dot_product_attention(queries, keys, values, {}, /*dropout_p=*/0, /*is_causal=*/true);
  const std::int64_t before = length - added;
  at::Tensor visible = at::ones({added, length}, queries.options().dtype(at::kBool)).tril(before);
  if (narrowed) visible = visible.triu(before - window_ + 1);
  if (documents.defined()) visible = visible & documents.unsqueeze(2).eq(documents.unsqueeze(1)).unsqueeze(1);
  return at::scaled_dot_product_attention(queries, keys, values, visible);
}

}  // namespace penstock
