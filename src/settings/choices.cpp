#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/base/nearest.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/settings.h"

namespace penstock {
namespace {

constexpr const char* automatic_word = "auto";

template <class Number>
std::optional<Number> whole_number(std::string_view text) {
  Number number = 0;
  const std::span<const char> letters(text);
  const char* const end = std::to_address(letters.end());
  const auto [after, error] = std::from_chars(std::to_address(letters.begin()), end, number);
  if (error != std::errc() || after != end || text.empty()) return std::nullopt;
  return number;
}

/// The parts of "1-4,7" between the commas: one at least, which may be empty.
std::vector<std::string_view> parts_of(std::string_view text) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

Error no_cut(std::string_view text, const std::string& why) {
  return bad_input(fmt::format("the cut \"{}\" {}", shortened(text), why),
                   "uniform, parameters, auto, or the ascending first layers of the later stages, such as 3,6,9",
                   "change `cut`");
}

Error no_layers(std::string_view text, const std::string& layers) {
  return bad_input(fmt::format("`recompute` is \"{}\"", shortened(text)),
                   fmt::format("none, full, selected, auto, or {}, such as 1-4,7", layers), "correct `recompute`");
}

int count_or_refuse(const char* name, const std::string& text) {
  const auto count = whole_number<int>(text);
  if (!count)
    throw bad_input(fmt::format("{} is \"{}\"", field(name), shortened(text)), "a whole number, or auto",
                    "correct " + field(name));
  return *count;
}

std::optional<LayerRange> layer_range(std::string_view words) {
  const std::size_t dash = words.find('-');
  const auto first = whole_number<std::int64_t>(words.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : whole_number<std::int64_t>(words.substr(dash + 1));
  if (!first || !last || *first < 0 || *first > *last) return std::nullopt;
  return LayerRange{*first, *last};
}

/// Ascending, with gaps between them.
std::vector<LayerRange> joined(std::vector<LayerRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const LayerRange& a, const LayerRange& b) { return a.first < b.first; });
  std::size_t kept = 0;
  for (const LayerRange& range : ranges) {
    if (kept > 0 && range.first <= ranges[kept - 1].last + 1)
      ranges[kept - 1].last = std::max(ranges[kept - 1].last, range.last);
    else
      ranges[kept++] = range;
  }
  ranges.resize(kept);
  return ranges;
}

/// "1-4,7".
std::string ranges_text(const std::vector<LayerRange>& ranges) {
  std::string text;
  for (const LayerRange& range : ranges) {
    if (!text.empty()) text += ',';
    text += range.first == range.last ? fmt::format("{}", range.first) : fmt::format("{}-{}", range.first, range.last);
  }
  return text;
}

}  // namespace

ModelChoice::ModelChoice(ModelKind kind) : kind_(kind) {
  check_invariant(kind != ModelKind::Published, "a published model without its folder");
}

ModelChoice::ModelChoice(const std::string& text) {
  const auto kind = kind_named<ModelKind>(text);
  std::error_code ignored;
  if (kind && kind != ModelKind::Published) {
    kind_ = *kind;
  } else if (text.find('/') != std::string::npos || std::filesystem::is_directory(text, ignored)) {
    kind_ = ModelKind::Published;
    folder_ = text;
  } else {
    const std::vector<std::string> words = words_of<ModelKind>();
    throw bad_input(
        fmt::format("`model` is \"{}\"", shortened(text)),
        fmt::format("one of {}, or the folder of a published model, which is not there", fmt::join(words, ", ")),
        fmt::format("change `model`{}", did_you_mean(text, words)));
  }
}

FrozenLayers::FrozenLayers(const std::string& text) {
  if (text.empty()) return;
  std::vector<LayerRange> ranges;
  for (const std::string_view part : parts_of(text)) {
    const auto range = layer_range(part);
    if (!range)
      throw bad_input(fmt::format("`freeze` is \"{}\"", shortened(text)), "layers, such as 0-11,13",
                      "correct `freeze`");
    ranges.push_back(*range);
  }
  ranges_ = joined(std::move(ranges));
}

std::string to_text(const FrozenLayers& frozen) { return ranges_text(frozen.ranges()); }

std::vector<bool> frozen_layers(const FrozenLayers& frozen, std::int64_t layers) {
  if (frozen.empty()) return {};
  if (frozen.ranges().back().last >= layers)
    throw bad_input(fmt::format("`freeze` is \"{}\"", shortened(to_text(frozen))),
                    fmt::format("layers from 0 to {}", layers - 1), "correct `freeze`");
  std::vector<bool> by_layer(as_size(layers), false);
  for (const LayerRange& range : frozen.ranges())
    for (std::int64_t layer = range.first; layer <= range.last; ++layer) by_layer[as_index(layer)] = true;
  return by_layer;
}

std::string to_text(const ModelChoice& model) {
  return model == ModelKind::Published ? model.folder() : word_of(model.kind());
}

CutChoice::CutChoice(Kind kind) : kind_(kind) {
  check_invariant(kind != Explicit, "an explicit cut without its layers");
}

CutChoice::CutChoice(const std::string& text) {
  if (text == automatic_word) {
    kind_ = Automatic;
  } else if (text == "parameters") {
    kind_ = ByParameters;
  } else if (text != "uniform") {
    std::vector<std::int64_t> first_layers;
    for (const std::string_view part : parts_of(text)) {
      const auto layer = whole_number<std::int64_t>(part);
      if (!layer) throw no_cut(text, "is not a list of numbers");
      first_layers.push_back(*layer);
    }
    *this = before(std::move(first_layers));
  }
}

CutChoice CutChoice::before(std::vector<std::int64_t> first_layers) {
  CutChoice cut;
  std::int64_t last = 0;
  for (const std::int64_t layer : first_layers) {
    if (layer <= last)
      throw no_cut(fmt::format("{}", fmt::join(first_layers, ",")), fmt::format("cuts before layer {}", layer));
    last = layer;
  }
  cut.kind_ = first_layers.empty() ? Uniform : Explicit;
  cut.first_layers_ = std::move(first_layers);
  return cut;
}

ScheduleChoice::ScheduleChoice(penstock::Automatic /*left_to_a_plan*/) : kind_(Automatic), text_(automatic_word) {}

ScheduleChoice::ScheduleChoice(const std::string& text) {
  text_ = text;
  if (text == automatic_word)
    kind_ = Automatic;
  else if (text.ends_with(".csv"))
    kind_ = File;
  else if (text.find_first_of("/.") != std::string::npos)
    throw bad_input(fmt::format("`schedule` is \"{}\"", shortened(text)),
                    "a schedule's name, or a file that ends in .csv", "rename the file or correct the name");
}

Microbatches::Microbatches(const std::string& text)
    : count_(text == automatic_word ? 0 : count_or_refuse("microbatches", text)), automatic_(text == automatic_word) {}

int Microbatches::count() const {
  check_invariant(!automatic_, "the number of microbatches is not chosen yet");
  return count_;
}

Ranks::Ranks(const std::string& text)
    : count_(text == automatic_word ? 0 : count_or_refuse("ranks", text)), automatic_(text == automatic_word) {}

int Ranks::count() const {
  check_invariant(!automatic_, "the number of ranks is not chosen yet");
  return count_;
}

Recompute::Recompute(Kind kind) : kind_(kind) { check_invariant(kind != Layers, "layers to recompute, but not which"); }

Recompute::Recompute(const std::string& text) {
  for (const Kind kind : {None, Full, Selected, Automatic})
    if (text == to_text(Recompute(kind))) {
      kind_ = kind;
      return;
    }
  std::vector<LayerRange> ranges;
  for (const std::string_view part : parts_of(text)) {
    const auto range = layer_range(part);
    if (!range) throw no_layers(text, "layers");
    ranges.push_back(*range);
  }
  *this = of(std::move(ranges));
}

Recompute Recompute::of(std::vector<LayerRange> layers) {
  Recompute recompute;
  if (layers.empty()) return recompute;
  recompute.kind_ = Layers;
  recompute.ranges_ = joined(std::move(layers));
  return recompute;
}

Recompute Recompute::of(const std::vector<bool>& by_layer) {
  std::vector<LayerRange> ranges;
  for (std::int64_t layer = 0; layer < std::ssize(by_layer); ++layer)
    if (by_layer[as_index(layer)]) ranges.push_back({layer, layer});
  return of(std::move(ranges));
}

std::string to_text(const CutChoice& cut) {
  switch (cut.kind()) {
    case CutChoice::Uniform:
      return "uniform";
    case CutChoice::ByParameters:
      return "parameters";
    case CutChoice::Automatic:
      return automatic_word;
    case CutChoice::Explicit:
      break;
  }
  return fmt::format("{}", fmt::join(cut.first_layers(), ","));
}

std::string to_text(const ScheduleChoice& schedule) { return schedule.text(); }

std::string to_text(const Microbatches& microbatches) {
  return microbatches.is_automatic() ? automatic_word : std::to_string(microbatches.count());
}

std::string to_text(const Ranks& ranks) {
  return ranks.is_automatic() ? automatic_word : std::to_string(ranks.count());
}

std::string to_text(const Recompute& recompute) {
  switch (recompute.kind()) {
    case Recompute::None:
      return "none";
    case Recompute::Full:
      return "full";
    case Recompute::Selected:
      return "selected";
    case Recompute::Automatic:
      return automatic_word;
    case Recompute::Layers:
      break;
  }
  return ranges_text(recompute.ranges());
}

std::vector<bool> recomputed_layers(const Recompute& recompute, std::int64_t layers) {
  check_invariant(recompute.kind() != Recompute::Selected && !recompute.is_automatic(),
                  "layers to recompute that are not chosen yet");
  if (recompute.kind() == Recompute::None) return {};
  std::vector<bool> by_layer(as_size(layers), recompute.kind() == Recompute::Full);
  for (const LayerRange& range : recompute.ranges()) {
    if (range.last >= layers) throw no_layers(to_text(recompute), fmt::format("layers from 0 to {}", layers - 1));
    for (std::int64_t layer = range.first; layer <= range.last; ++layer) by_layer[as_index(layer)] = true;
  }
  return by_layer;
}

}  // namespace penstock
