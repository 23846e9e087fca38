#include "penstock/models/decoder_settings.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "penstock/base/error.h"

#include "models/adapters.h"

namespace penstock {
namespace {

constexpr std::int64_t largest_size = 1'000'000'000;
constexpr std::int64_t most_blocks = 10'000;
// A tensor of float32 beyond it has no address.
constexpr double most_elements = 1e18;

void check_size(const char* name, std::int64_t size, std::int64_t most = largest_size) {
  if (size < 1 || size > most)
    throw bad_input(fmt::format("a decoder whose {} is {}", name, size), fmt::format("1 to {}", most),
                    "correct its config.json");
}

void check_divides(const char* part, std::int64_t parts, const char* whole, std::int64_t all) {
  if (all % parts != 0)
    throw bad_input(fmt::format("a decoder whose {} of {} do not divide the {} of {}", part, parts, whole, all),
                    "a whole number of each", "correct its config.json");
}

void check_number(const char* name, double number, bool holds, const char* expected) {
  if (!std::isfinite(number) || !holds)
    throw bad_input(fmt::format("a decoder whose {} is {}", name, number), expected, "correct its config.json");
}

void check_rotary(const RotarySettings& rotary, std::int64_t head_size) {
  if (head_size % 2 != 0)
    throw bad_input(fmt::format("a decoder whose heads of {} features turn in pairs", head_size), "an even head size",
                    "correct its config.json");
  check_number("rotary base", rotary.base, rotary.base > 0, "a number above 0");
  check_number("rotary factor", rotary.factor, rotary.factor > 0, "a number above 0");
  check_number("low frequency factor", rotary.low_frequency_factor, rotary.low_frequency_factor > 0,
               "a number above 0");
  check_number("high frequency factor", rotary.high_frequency_factor,
               rotary.high_frequency_factor > rotary.low_frequency_factor, "a number above the low one");
  check_size("number of original positions", rotary.original_positions);
}

void check_experts(const ExpertSettings& experts, const DecoderSettings& settings) {
  check_size("number of experts", experts.count, 4096);
  check_size("number of experts for a token", experts.chosen, experts.count);
  check_size("experts' inner width", experts.inner_width);
  check_number("auxiliary loss", experts.auxiliary_loss, experts.auxiliary_loss >= 0, "a number of at least 0");
  if (!settings.gated || settings.feed_forward_bias)
    throw bad_input("a decoder whose experts are not gated, or have a bias", "gated experts without a bias",
                    "correct its config.json");
  check_number("experts' weights", 0,
               static_cast<double>(experts.count) * 2 * static_cast<double>(experts.inner_width) *
                       static_cast<double>(settings.width) <
                   most_elements,
               "matrices that have an address");
}

std::string text_of(const RotarySettings& rotary) {
  std::string text = fmt::format("rotary {}", rotary.base);
  if (rotary.scaling == RotaryScaling::Linear) text += fmt::format(" linear {}", rotary.factor);
  if (rotary.scaling == RotaryScaling::Llama3)
    text += fmt::format(" llama3 {} {} {} {}", rotary.factor, rotary.low_frequency_factor, rotary.high_frequency_factor,
                        rotary.original_positions);
  return text;
}

std::string text_of(const ExpertSettings& experts) {
  return fmt::format("experts {} of {}, inner {}{}, balance {}, dense [{}]", experts.chosen, experts.count,
                     experts.inner_width, experts.normalised ? ", normalised" : "", experts.auxiliary_loss,
                     fmt::join(experts.dense_blocks, " "));
}

std::string text_of(const LoraSettings& lora) {
  return fmt::format(", lora {} alpha {} of {}", lora.rank, lora.alpha, fmt::join(lora.targets, " "));
}

const char* word_of_activation(Activation activation) {
  switch (activation) {
    case Activation::Gelu:
      return "gelu";
    case Activation::GeluTanh:
      return "gelu_new";
    case Activation::Silu:
      return "silu";
  }
  return "";
}

}  // namespace

bool has_experts(const DecoderSettings& settings, std::int64_t block) {
  if (!settings.experts) return false;
  const std::vector<std::int64_t>& dense = settings.experts->dense_blocks;
  return std::find(dense.begin(), dense.end(), block) == dense.end();
}

std::int64_t window_of(const DecoderSettings& settings, std::int64_t block) {
  return settings.windows.empty() ? 0 : settings.windows.at(static_cast<std::size_t>(block));
}

std::string to_text(const DecoderSettings& settings) {
  return fmt::format(
             "vocabulary {}, blocks {}, width {}, heads {} over {} of {}, inner {}, positions {}, {} {}, {}, windows "
             "[{}]{}{}{}"
             "{}, {}{}, {}{}",
             settings.vocabulary, settings.layers, settings.width, settings.heads, settings.key_value_heads,
             settings.head_size, settings.inner_width, settings.most_positions,
             settings.norm == NormKind::LayerNorm ? "layer norm" : "rms norm", settings.norm_epsilon,
             settings.rotary ? text_of(*settings.rotary) : "learned positions", fmt::join(settings.windows, " "),
             settings.query_key_norms ? ", query and key norms" : "", settings.qkv_bias ? ", qkv bias" : "",
             settings.attention_output_bias ? ", output bias" : "", settings.gated ? ", gated" : "",
             word_of_activation(settings.activation), settings.feed_forward_bias ? ", feed-forward bias" : "",
             settings.experts ? text_of(*settings.experts) : "no experts", settings.tied_head ? ", tied head" : "") +
         (settings.lora ? text_of(*settings.lora) : "");
}

void check_decoder(const DecoderSettings& settings) {
  check_size("vocabulary", settings.vocabulary);
  check_size("number of blocks", settings.layers, most_blocks);
  check_size("width", settings.width);
  check_size("number of heads", settings.heads, 1'000'000);
  check_size("number of key and value heads", settings.key_value_heads, 1'000'000);
  check_size("head size", settings.head_size, 1'000'000);
  check_size("inner width", settings.inner_width);
  check_size("number of positions", settings.most_positions);
  check_divides("key and value heads", settings.key_value_heads, "heads", settings.heads);
  check_size("number of logits at once", settings.logits_at_once, std::int64_t{1} << 40);
  check_number("norm's epsilon", settings.norm_epsilon, settings.norm_epsilon >= 0, "a number of at least 0");
  check_number("initial deviation", settings.initial_deviation, settings.initial_deviation >= 0,
               "a number of at least 0");
  check_number("dropout", settings.dropout, settings.dropout >= 0 && settings.dropout < 1, "a number in [0, 1)");
  if (settings.rotary) check_rotary(*settings.rotary, settings.head_size);
  if (settings.experts) check_experts(*settings.experts, settings);
  if (settings.lora) check_adapters(settings);
  if (settings.documents && (settings.documents->end_token < 0 || settings.documents->end_token >= settings.vocabulary))
    throw bad_input(fmt::format("documents that end with the token {}", settings.documents->end_token),
                    fmt::format("a token below {}, the vocabulary of the model", settings.vocabulary),
                    "use the tokenizer of the model");
  if (!settings.windows.empty() && std::ssize(settings.windows) != settings.layers)
    throw bad_input(fmt::format("a decoder of {} with {}", counted(settings.layers, "block"),
                                counted(std::ssize(settings.windows), "window")),
                    "a window for each block, or none", "correct its config.json");
  for (const std::int64_t window : settings.windows)
    if (window < 0) throw bad_input("a decoder with a window below 0", "0 or more tokens", "correct its config.json");
}

}  // namespace penstock
