#include "models/adapters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <vector>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::array feed_forward_targets{"gate_proj", "up_proj", "down_proj"};

std::vector<std::string> possible_targets(const DecoderSettings& settings) {
  if (settings.matrix_names == MatrixNames::Gpt2) return {"c_attn", "c_proj", "c_fc"};
  std::vector<std::string> targets{"q_proj", "k_proj", "v_proj", "o_proj"};
  bool has_dense = false;
  for (std::int64_t block = 0; block < settings.layers; ++block) has_dense = has_dense || !has_experts(settings, block);
  if (has_dense && settings.gated)
    targets.insert(targets.end(), feed_forward_targets.begin(), feed_forward_targets.end());
  return targets;
}

}  // namespace

bool is_target(const LoraSettings& lora, const std::string& part) {
  return std::find(lora.targets.begin(), lora.targets.end(), part) != lora.targets.end();
}

bool is_feed_forward_target(const std::string& part) {
  return std::find(feed_forward_targets.begin(), feed_forward_targets.end(), part) != feed_forward_targets.end();
}

bool is_of_adapter(const std::string& name) { return name.ends_with(narrow_suffix) || name.ends_with(widen_suffix); }

void check_adapters(const DecoderSettings& settings) {
  const LoraSettings& lora = settings.lora.value();
  constexpr std::int64_t most = 1'000'000;
  if (lora.rank < 1 || lora.rank > most)
    throw bad_input(fmt::format("`lora` is {}", lora.rank), fmt::format("1 to {}", most), "change `lora`");
  if (!std::isfinite(lora.alpha) || lora.alpha <= 0)
    throw bad_input(fmt::format("`lora_alpha` is {}", lora.alpha), "a number above 0", "change `lora_alpha`");
  const std::vector<std::string> possible = possible_targets(settings);
  if (lora.targets.empty())
    throw bad_input("no `lora_targets`", fmt::format("some of {}", fmt::join(possible, ", ")), "name one");
  for (const std::string& target : lora.targets)
    if (std::find(possible.begin(), possible.end(), target) == possible.end())
      throw bad_input(fmt::format("`lora_targets` has \"{}\"", shortened(target)),
                      fmt::format("some of {}", fmt::join(possible, ", ")), "change `lora_targets`");
}

}  // namespace penstock
