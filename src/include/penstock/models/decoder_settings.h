/// \file
/// The shape of a decoder: which of the parts that published models are made of it has, and how large they are. Free of
/// libtorch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace penstock {

/// How activations are brought to one scale before attention, before the feed-forward and before the head.
enum class NormKind : std::uint8_t {
  LayerNorm,  ///< mean 0 and deviation 1, a weight and a bias
  RmsNorm,    ///< root of the mean square 1, a weight (arXiv 1910.07467)
};

/// What bends the line between the two products of a feed-forward.
enum class Activation : std::uint8_t {
  Gelu,      ///< by the error function
  GeluTanh,  ///< by its approximation with tanh, which GPT-2 has
  Silu,
};

/// How positions beyond those of the first training are brought into its range.
enum class RotaryScaling : std::uint8_t {
  None,
  Linear,  ///< all frequencies are divided by the factor (arXiv 2306.15595)
  Llama3,  ///< low ones are divided, high ones stay, and those between are blended
};

/// Positions as rotations: each pair of a query's or key's features turns with the position, at a frequency of its own
/// (arXiv 2104.09864).
struct RotarySettings {
  double base = 10'000;  ///< the slowest pair turns about once in 2π times so many positions
  RotaryScaling scaling = RotaryScaling::None;
  double factor = 1;                        ///< of both scalings
  double low_frequency_factor = 1;          ///< of Llama3
  double high_frequency_factor = 4;         ///< of Llama3; another than the low one
  std::int64_t original_positions = 8'192;  ///< of Llama3: those of the first training

  friend bool operator==(const RotarySettings&, const RotarySettings&) = default;
};

/// A mixture of experts: several feed-forwards in place of one, of which a router chooses a few for each token.
struct ExpertSettings {
  std::int64_t count = 8;
  std::int64_t chosen = 2;       ///< for each token
  std::int64_t inner_width = 0;  ///< of each
  bool normalised = true;        ///< whether the weights of those chosen add up to 1
  /// The factor of the loss that grows if a few experts get most tokens (arXiv 2101.03961); 0: none.
  double auxiliary_loss = 0;
  std::vector<std::int64_t> dense_blocks = {};  ///< the numbers, from 0, of blocks that have one feed-forward after all

  friend bool operator==(const ExpertSettings&, const ExpertSettings&) = default;
};

/// Adapters: all weights stay as they are, and beside some of their matrices a product of two narrow ones is learned
/// (arXiv 2106.09685).
struct LoraSettings {
  std::int64_t rank = 8;  ///< columns of the first and rows of the second
  double alpha = 16;      ///< the product is multiplied with alpha / rank
  /// Of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj; of GPT-2's matrices c_attn, c_proj (that of
  /// the attention and that of the feed-forward) and c_fc. Experts have none.
  std::vector<std::string> targets = {"q_proj", "v_proj"};

  friend bool operator==(const LoraSettings&, const LoraSettings&) = default;
};

/// Several documents in one sequence, kept apart: a token sees those of its own document alone.
struct DocumentSettings {
  std::int64_t end_token = 0;     ///< the last token of each document
  bool positions_restart = true;  ///< whether each document begins at position 0

  friend bool operator==(const DocumentSettings&, const DocumentSettings&) = default;
};

/// By which names adapters know the matrices of a block.
enum class MatrixNames : std::uint8_t {
  Llama,  ///< queries, keys and values have one each: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj
  Gpt2,   ///< queries, keys and values are one matrix: c_attn, c_proj, c_fc, c_proj
};

/// A decoder-only transformer of pre-norm blocks. The defaults are those of Llama.
struct DecoderSettings {
  std::int64_t vocabulary = 256;
  std::int64_t layers = 8;            ///< blocks
  std::int64_t width = 128;           ///< features of a token between the blocks
  std::int64_t heads = 4;             ///< of queries
  std::int64_t key_value_heads = 4;   ///< must divide the heads; each serves heads / key_value_heads of them
  std::int64_t head_size = 32;        ///< features of a head; need not be width / heads
  std::int64_t inner_width = 344;     ///< of the feed-forward
  std::int64_t most_positions = 128;  ///< that it was made for; learned positions have no more

  NormKind norm = NormKind::RmsNorm;
  double norm_epsilon = 1e-6;
  std::optional<RotarySettings> rotary = RotarySettings{};  ///< none: a learned vector for each position
  /// By block, how many tokens back a token sees, itself among them; 0: all. Empty: all, everywhere.
  std::vector<std::int64_t> windows = {};
  bool query_key_norms = false;  ///< a norm over each head's queries and keys, before they are rotated
  bool qkv_bias = false;         ///< of queries, keys and values
  bool attention_output_bias = false;
  bool gated = true;  ///< a second product is multiplied with the activated one (arXiv 2002.05202)
  Activation activation = Activation::Silu;
  bool feed_forward_bias = false;
  std::optional<ExpertSettings> experts = {};  ///< gated, without bias
  bool tied_head = false;                      ///< the head's weight is the token embedding's
  std::optional<LoraSettings> lora = {};
  MatrixNames matrix_names = MatrixNames::Llama;   ///< no part of the shape
  std::optional<DocumentSettings> documents = {};  ///< none: a sequence is one document. No part of the shape

  double dropout = 0;  ///< after the embedding and on each residual branch
  /// Logits that are there at once. A microbatch that has more of them gets its loss in chunks of tokens, and logits
  /// are made again in the backward. No part of the shape. 2²⁴ of them have 64 MiB.
  std::int64_t logits_at_once = std::int64_t{1} << 24;
  double initial_deviation = 0.02;  ///< of matrices that are drawn anew
  bool scaled_residuals = false;    ///< those that end a residual branch are drawn smaller, by the root of their number

  friend bool operator==(const DecoderSettings&, const DecoderSettings&) = default;
};

/// Whether that block, from 0, has experts in place of one feed-forward.
[[nodiscard]] bool has_experts(const DecoderSettings& settings, std::int64_t block);

/// How many tokens back that block, from 0, sees; 0: all.
[[nodiscard]] std::int64_t window_of(const DecoderSettings& settings, std::int64_t block);

/// All of it in one line, equal for equal settings alone; without what is no part of the network's shape: dropout,
/// documents and how the loss is computed.
[[nodiscard]] std::string to_text(const DecoderSettings& settings);

/// \throws Error (BadInput) where sizes are below 1 or do not divide.
void check_decoder(const DecoderSettings& settings);

}  // namespace penstock
