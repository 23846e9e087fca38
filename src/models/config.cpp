#include "penstock/models/config.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <system_error>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/text_limits.h"

#include "models/config_value.h"

namespace penstock {
namespace {

constexpr std::int64_t longest_config = 4 << 20;
constexpr double default_base = 10'000;

bool is_one_of(ModelFamily family, std::initializer_list<ModelFamily> families) {
  return std::find(families.begin(), families.end(), family) != families.end();
}

ModelFamily family_of(const ConfigValues& config) {
  const std::string type = config.text("model_type");
  if (const auto family = kind_named<ModelFamily>(type)) return *family;
  throw config.unsupported("model_type", type, fmt::format("one of {}", fmt::join(words_of<ModelFamily>(), ", ")));
}

Activation activation_of(const ConfigValues& config, const char* name, const std::string& otherwise) {
  const std::string word = config.text(name, otherwise);
  if (word == "silu" || word == "swish") return Activation::Silu;
  if (word == "gelu") return Activation::Gelu;
  if (word == "gelu_new" || word == "gelu_pytorch_tanh") return Activation::GeluTanh;
  throw config.unsupported(name, word, "one of silu, gelu, gelu_new");
}

// What would make another network of it, and is not there in any model that is well known.
void check_unusual(const ConfigValues& config, std::initializer_list<std::pair<const char*, bool>> wanted) {
  for (const auto& [name, value] : wanted)
    if (config.boolean(name, value) != value)
      throw config.unsupported(name, value ? "false" : "true", value ? "true" : "false");
}

void check_plain_weights(const ConfigValues& config) {
  if (!config.has("quantization_config")) return;
  throw config.unsupported("quantization_config", config.object("quantization_config").text("quant_method", "there"),
                           "weights in float32, float16 or bfloat16");
}

void check_whole_heads_turn(const ConfigValues& config) {
  constexpr const char* name = "partial_rotary_factor";
  if (config.number(name, 1) != 1)
    throw config.unsupported(name, fmt::format("{}", config.number(name)), "1: whole heads turn");
}

// The newer form is one object, the older one a number and an object, which goes before it where both are there.
RotarySettings rotary_of(const ConfigValues& config, double base, std::int64_t most_positions) {
  RotarySettings rotary;
  rotary.base = config.number("rope_theta", base);
  check_whole_heads_turn(config);
  const char* const name = config.has_members("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (!config.has(name)) return rotary;
  const ConfigValues scaling = config.object(name);
  for (const char* const kind : {"full_attention", "sliding_attention"})
    if (scaling.has(kind)) throw scaling.unsupported(kind, "there", "the same positions in all layers");
  rotary.base = scaling.number("rope_theta", rotary.base);
  check_whole_heads_turn(scaling);
  const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  if (type == "default") return rotary;
  if (type != "linear" && type != "llama3")
    throw scaling.unsupported("rope_type", type, "one of default, linear, llama3");
  rotary.factor = scaling.number("factor");
  rotary.scaling = type == "linear" ? RotaryScaling::Linear : RotaryScaling::Llama3;
  if (type == "linear") return rotary;
  rotary.low_frequency_factor = scaling.number("low_freq_factor");
  rotary.high_frequency_factor = scaling.number("high_freq_factor");
  constexpr const char* original = "original_max_position_embeddings";
  rotary.original_positions = config.has(original) ? config.size(original) : scaling.size(original, most_positions);
  return rotary;
}

// Qwen's has a switch, and a word for each layer or the first layer that is narrowed.
std::vector<std::int64_t> qwen_windows(const ConfigValues& config, std::int64_t layers, bool by_layer) {
  constexpr std::int64_t usual_window = 4096;
  constexpr std::int64_t usual_full_layers = 28;
  std::vector<std::int64_t> windows(static_cast<std::size_t>(layers), 0);
  const bool narrowed = config.boolean("use_sliding_window", false) && !config.is_null("sliding_window");
  const std::int64_t window = narrowed ? config.size("sliding_window", usual_window) : 0;
  if (!by_layer) return narrowed ? std::vector(static_cast<std::size_t>(layers), window) : std::vector<std::int64_t>{};
  const std::vector<std::string> types = config.texts("layer_types");
  if (!types.empty() && std::ssize(types) != layers)
    throw config.unsupported("layer_types", counted(std::ssize(types), "word"),
                             fmt::format("one for each of {}", counted(layers, "layer")));
  const std::int64_t first = config.has("max_window_layers") ? config.size("max_window_layers") : usual_full_layers;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const auto place = static_cast<std::size_t>(layer);
    const std::string type =
        !types.empty() ? types[place] : (narrowed && layer >= first ? "sliding_attention" : "full_attention");
    if (type != "full_attention" && type != "sliding_attention")
      throw config.unsupported("layer_types", type, "full_attention or sliding_attention");
    if (type == "sliding_attention" && !narrowed)
      throw config.unsupported("layer_types", type, "a sliding_window that use_sliding_window turns on");
    if (type == "sliding_attention") windows[place] = window;
  }
  const bool all_full = std::all_of(windows.begin(), windows.end(), [](std::int64_t each) { return each == 0; });
  return all_full ? std::vector<std::int64_t>{} : windows;
}

std::vector<std::int64_t> windows_of(const ConfigValues& config, ModelFamily family, std::int64_t layers) {
  constexpr std::int64_t mistral_window = 4096;
  if (is_one_of(family, {ModelFamily::Qwen2, ModelFamily::Qwen3, ModelFamily::Qwen3Moe}))
    return qwen_windows(config, layers, family != ModelFamily::Qwen3Moe);
  // A mistral with it is what others call ministral.
  if (family == ModelFamily::Mistral && config.has("layer_types"))
    throw config.unsupported("layer_types", "there", "a mistral whose layers are all alike");
  if (!is_one_of(family, {ModelFamily::Mistral, ModelFamily::Mixtral}) || config.is_null("sliding_window")) return {};
  if (family == ModelFamily::Mixtral && !config.has("sliding_window")) return {};
  return std::vector(static_cast<std::size_t>(layers), config.size("sliding_window", mistral_window));
}

ExpertSettings experts_of(const ConfigValues& config, ModelFamily family, const DecoderSettings& decoder) {
  ExpertSettings experts;
  const bool mixtral = family == ModelFamily::Mixtral;
  // Both names are in use for both families.
  const std::int64_t usual_count = mixtral ? 8 : 128;
  const std::int64_t otherwise = config.size("num_experts", usual_count);
  experts.count = config.size("num_local_experts", otherwise);
  if (config.has("num_experts") && experts.count != otherwise)
    throw config.unsupported("num_local_experts", std::to_string(experts.count),
                             fmt::format("num_experts, which is {}, or one of the two alone", otherwise));
  experts.chosen = config.size("num_experts_per_tok", mixtral ? 2 : 8);
  experts.inner_width = mixtral ? decoder.inner_width : config.size("moe_intermediate_size");
  experts.normalised = mixtral || config.boolean("norm_topk_prob", false);
  constexpr double usual_loss = 0.001;
  if (config.boolean("output_router_logits", false))
    experts.auxiliary_loss = config.number("router_aux_loss_coef", usual_loss);
  if (mixtral) return experts;
  const std::vector<std::int64_t> dense = config.sizes("mlp_only_layers");
  const std::int64_t step = config.size("decoder_sparse_step", 1);
  for (std::int64_t block = 0; block < decoder.layers; ++block)
    if ((block + 1) % step != 0 || std::find(dense.begin(), dense.end(), block) != dense.end())
      experts.dense_blocks.push_back(block);
  return experts;
}

DecoderSettings gpt2_of(const ConfigValues& config) {
  check_unusual(config, {{"scale_attn_weights", true},
                         {"scale_attn_by_inverse_layer_idx", false},
                         {"reorder_and_upcast_attn", false},
                         {"add_cross_attention", false}});
  DecoderSettings decoder;
  decoder.vocabulary = config.size("vocab_size");
  decoder.width = config.size("n_embd");
  decoder.layers = config.size("n_layer");
  decoder.heads = config.size("n_head");
  if (decoder.width % decoder.heads != 0)
    throw config.unsupported("n_head", std::to_string(decoder.heads),
                             fmt::format("heads that divide n_embd, which is {}", decoder.width));
  decoder.key_value_heads = decoder.heads;
  decoder.head_size = decoder.width / decoder.heads;
  decoder.inner_width = config.size("n_inner", 4 * decoder.width);
  decoder.most_positions = config.size("n_positions", 1024);
  decoder.norm = NormKind::LayerNorm;
  decoder.norm_epsilon = config.number("layer_norm_epsilon", 1e-5);
  decoder.rotary.reset();
  decoder.qkv_bias = decoder.attention_output_bias = decoder.feed_forward_bias = true;
  decoder.gated = false;
  decoder.activation = activation_of(config, "activation_function", "gelu_new");
  decoder.tied_head = config.boolean("tie_word_embeddings", true);
  decoder.scaled_residuals = true;
  decoder.matrix_names = MatrixNames::Gpt2;
  return decoder;
}

std::int64_t usual_head_size(const ConfigValues& config, ModelFamily family, const DecoderSettings& decoder) {
  constexpr std::int64_t qwen3_head_size = 128;
  if (family == ModelFamily::Qwen3 && !config.is_null("head_dim")) return qwen3_head_size;
  if (decoder.width % decoder.heads != 0)
    throw config.unsupported("num_attention_heads", std::to_string(decoder.heads),
                             fmt::format("heads that divide hidden_size, which is {}, or a head_dim", decoder.width));
  return decoder.width / decoder.heads;
}

// What transformers takes where the file does not say it; null stands for as many as there are heads.
std::int64_t usual_key_value_heads(const ConfigValues& config, ModelFamily family, std::int64_t heads) {
  if (config.is_null("num_key_value_heads")) return heads;
  switch (family) {
    case ModelFamily::Mistral:
    case ModelFamily::Mixtral:
      return 8;
    case ModelFamily::Qwen2:
    case ModelFamily::Qwen3:
      return 32;
    case ModelFamily::Qwen3Moe:
      return 4;
    case ModelFamily::Gpt2:
    case ModelFamily::Llama:
      break;
  }
  return heads;
}

DecoderSettings llama_like_of(const ConfigValues& config, ModelFamily family) {
  using enum ModelFamily;
  constexpr double mixtral_base = 1'000'000;
  DecoderSettings decoder;
  decoder.vocabulary = config.size("vocab_size");
  decoder.width = config.size("hidden_size");
  decoder.layers = config.size("num_hidden_layers");
  decoder.heads = config.size("num_attention_heads");
  decoder.key_value_heads = config.size("num_key_value_heads", usual_key_value_heads(config, family, decoder.heads));
  decoder.head_size = config.has("head_dim") ? config.size("head_dim") : usual_head_size(config, family, decoder);
  decoder.inner_width = config.size("intermediate_size");
  decoder.most_positions = config.size("max_position_embeddings");
  decoder.norm_epsilon = config.number("rms_norm_eps", family == Mixtral ? 1e-5 : 1e-6);
  decoder.rotary = rotary_of(config, family == Mixtral ? mixtral_base : default_base, decoder.most_positions);
  decoder.windows = windows_of(config, family, decoder.layers);
  decoder.query_key_norms = is_one_of(family, {Qwen3, Qwen3Moe});
  const bool biased = is_one_of(family, {Llama, Qwen3, Qwen3Moe}) && config.boolean("attention_bias", false);
  decoder.qkv_bias = biased || family == Qwen2;
  decoder.attention_output_bias = biased;
  decoder.activation = activation_of(config, "hidden_act", "silu");
  decoder.feed_forward_bias = family == Llama && config.boolean("mlp_bias", false);
  decoder.tied_head = config.boolean("tie_word_embeddings", false);
  if (family == Mixtral && config.number("router_jitter_noise", 0) != 0)
    throw config.unsupported("router_jitter_noise", fmt::format("{}", config.number("router_jitter_noise")), "0");
  if (is_one_of(family, {Mixtral, Qwen3Moe})) decoder.experts = experts_of(config, family, decoder);
  return decoder;
}

}  // namespace

ModelConfig parse_config(const std::string& text, const std::string& source) {
  check_json_limits(text, source, {});
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception&) {
    throw bad_input(source + " is no JSON", "the configuration of a published model", "check the file");
  }
  if (!json.is_object())
    throw bad_input(source + " is no JSON object", "the configuration of a published model", "check the file");
  const ConfigValues config(json, source);
  ModelConfig model;
  model.family = family_of(config);
  check_plain_weights(config);
  check_unusual(config, {{"is_causal", true}});
  model.decoder = model.family == ModelFamily::Gpt2 ? gpt2_of(config) : llama_like_of(config, model.family);
  model.decoder.initial_deviation = config.number("initializer_range", model.decoder.initial_deviation);
  try {
    check_decoder(model.decoder);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("{}: {}", source, error.what()));
  }
  return model;
}

std::string shape_text(const ModelConfig& model) {
  return fmt::format("{}: {}", word_of(model.family), to_text(model.decoder));
}

ModelConfig read_config(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / config_file;
  std::error_code unknown;
  if (!std::filesystem::exists(file, unknown))
    throw bad_input(fmt::format("{} has no {}", folder.string(), config_file),
                    "the folder of a published model: config.json, its weights and its tokenizer", "check the path");
  return parse_config(read_file(file, longest_config), file.string());
}

}  // namespace penstock
