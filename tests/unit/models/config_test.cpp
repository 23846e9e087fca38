#include "penstock/models/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

namespace penstock::config_test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// As the models were published, without what says nothing of their shape.
constexpr const char* llama_3_2_1b = R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
  "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
  "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 128256})";
constexpr const char* mistral_7b = R"({"model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096,
  "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
  "tie_word_embeddings": false, "vocab_size": 32000})";
constexpr const char* gpt2 = R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
  "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768,
  "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257})";
constexpr const char* qwen3_30b = R"({"model_type": "qwen3_moe", "attention_bias": false, "decoder_sparse_step": 1,
  "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
  "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768,
  "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
  "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": false, "rms_norm_eps": 1e-06,
  "rope_scaling": null, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null,
  "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936})";

ModelConfig parsed(const std::string& text) { return parse_config(text, "config.json"); }

TEST(Config, ReadsTheOlderFormOfRotaryPositions) {
  const ModelConfig model = parsed(llama_3_2_1b);
  EXPECT_EQ(model.family, ModelFamily::Llama);
  DecoderSettings expected;
  expected.vocabulary = 128'256;
  expected.layers = 16;
  expected.width = 2048;
  expected.heads = 32;
  expected.key_value_heads = 8;
  expected.head_size = 64;
  expected.inner_width = 8192;
  expected.most_positions = 131'072;
  expected.norm_epsilon = 1e-5;
  expected.rotary = RotarySettings{500'000, RotaryScaling::Llama3, 32, 1, 4, 8192};
  expected.tied_head = true;
  EXPECT_EQ(model.decoder, expected) << to_text(model.decoder);
}

TEST(Config, ReadsWindowsPartsAndExperts) {
  const DecoderSettings mistral = parsed(mistral_7b).decoder;
  EXPECT_EQ(mistral.windows, std::vector<std::int64_t>(32, 4096));
  EXPECT_EQ(mistral.head_size, 128);
  const DecoderSettings learned = parsed(gpt2).decoder;
  EXPECT_FALSE(learned.rotary);
  EXPECT_EQ(learned.inner_width, 3072);
  EXPECT_EQ(learned.activation, Activation::GeluTanh);
  EXPECT_TRUE(learned.tied_head && learned.qkv_bias && learned.scaled_residuals && !learned.gated);
  const DecoderSettings sparse = parsed(qwen3_30b).decoder;
  EXPECT_TRUE(sparse.query_key_norms);
  EXPECT_EQ(sparse.experts, (ExpertSettings{128, 8, 768, true, 0, {}}));
  EXPECT_TRUE(sparse.windows.empty());
}

TEST(Config, FollowsTransformersWhereBothFormsOrNoneAreThere) {
  const auto changed = [](std::string text, const std::string& from, const std::string& to) {
    return parsed(text.replace(text.find(from), from.size(), to)).decoder;
  };
  const std::string newer = R"(, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0})";
  const std::string end = R"("vocab_size": 128256})";
  const auto with = [&](const std::string& more) {
    return changed(llama_3_2_1b, end, R"("vocab_size": 128256)" + more + "}");
  };
  EXPECT_EQ(with(newer).rotary, (RotarySettings{500'000, RotaryScaling::Llama3, 32, 1, 4, 8192}));
  EXPECT_EQ(with(R"(, "original_max_position_embeddings": 4096)").rotary->original_positions, 4096);
  EXPECT_EQ(changed(mistral_7b, "\"num_key_value_heads\": 8,", "").key_value_heads, 8);
  EXPECT_EQ(changed(mistral_7b, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": null").key_value_heads, 32);
  EXPECT_EQ(changed(llama_3_2_1b, "\"num_key_value_heads\": 8,", "").key_value_heads, 32);
  EXPECT_EQ(changed(qwen3_30b, "\"num_key_value_heads\": 4,", "").key_value_heads, 4);
}

TEST(Config, TextsOfDecodersDifferWhereTheirShapesDo) {
  const DecoderSettings decoder = parsed(llama_3_2_1b).decoder;
  DecoderSettings same = decoder;
  same.dropout = 0.1;
  same.logits_at_once = 5;
  EXPECT_EQ(to_text(decoder), to_text(same));
  for (const auto& change : std::vector<void (*)(DecoderSettings&)>{
           [](auto& d) { d.rotary->factor = 2; }, [](auto& d) { d.windows.assign(16, 3); },
           [](auto& d) { d.tied_head = false; }, [](auto& d) { d.query_key_norms = true; },
           [](auto& d) { d.activation = Activation::Gelu; }}) {
    DecoderSettings other = decoder;  // NOLINT(misc-const-correctness): it is changed
    change(other);
    EXPECT_NE(to_text(decoder), to_text(other));
  }
}

TEST(Config, RefusesInOneLineWithTheFile) {
  const auto refused = [](const std::string& text, const std::string& words) {
    EXPECT_THAT([&] { static_cast<void>(parsed(text)); },
                ThrowsMessage<Error>(testing::AllOf(HasSubstr("config.json"), HasSubstr(words))));
  };
  refused("", "is no JSON");
  refused("[]", "is no JSON object");
  refused("{}", "has no model_type");
  refused(R"({"model_type": "t5"})", "expected one of gpt2, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe");
  refused(R"({"model_type": "llama"})", "has no vocab_size");
  const auto changed = [](std::string text, const std::string& from, const std::string& to) {
    return text.replace(text.find(from), from.size(), to);
  };
  refused(changed(llama_3_2_1b, R"("rope_type": "llama3")", R"("rope_type": "yarn")"),
          "rope_scaling.rope_type is \"yarn\"");
  refused(changed(llama_3_2_1b, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5"), "do not divide");
  refused(changed(llama_3_2_1b, "\"head_dim\": 64", "\"head_dim\": 63"), "even head size");
  refused(changed(llama_3_2_1b, "2048", "1e30"), "hidden_size is 1e+30");
  const std::string end = "\"tie_word_embeddings\": false";
  const auto mistral_with = [&](const std::string& more) { return changed(mistral_7b, end, end + ", " + more); };
  refused(mistral_with(R"("layer_types": ["full_attention"])"), "layer_types");
  refused(mistral_with(R"("partial_rotary_factor": 0.5)"), "partial_rotary_factor is \"0.5\"");
  refused(mistral_with(R"("rope_parameters": {"full_attention": {"rope_theta": 5}})"),
          "rope_parameters.full_attention");
  refused(mistral_with(R"("is_causal": false)"), "is_causal");
  refused(changed(qwen3_30b, R"("num_experts": 128)", R"("num_experts": 128, "num_local_experts": 64)"),
          "num_local_experts is \"64\"");
  refused(changed(gpt2, "\"n_head\": 12", "\"n_head\": 7"), "n_head");
  refused(changed(gpt2, "gelu_new", "relu\\nx"), "activation_function");
  refused(changed(qwen3_30b, "\"num_experts_per_tok\": 8", "\"num_experts_per_tok\": 129"), "experts for a token");
}

}  // namespace
}  // namespace penstock::config_test
