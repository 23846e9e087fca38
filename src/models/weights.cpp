#include "penstock/models/weights.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "models/index.h"
#include "models/names.h"
#include "models/published_tensors.h"

namespace penstock {
namespace {

constexpr std::string_view gpt2_prefix = "transformer.";

std::string text_of(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape.vec(), ", ")); }

// What does not fit, by the way in which it does not.
class Differences {
 public:
  void add_missing(const std::string& name) { missing_.push_back(name); }
  void add_unexpected(const std::string& name) { unexpected_.push_back(name); }
  void add_misshapen(const std::string& name, const std::string& is, const std::string& should) {
    misshapen_.push_back(fmt::format("{} is {} in place of {}", name, is, should));
  }

  [[nodiscard]] std::string text() const {
    std::vector<std::string> parts;
    for (const auto& [names, what] :
         {std::pair{&missing_, "missing"}, {&unexpected_, "unexpected"}, {&misshapen_, "misshapen"}})
      if (!names->empty()) parts.push_back(fmt::format("{} {} ({})", names->size(), what, listed(*names)));
    return fmt::format("{}", fmt::join(parts, ", "));
  }

 private:
  static std::string listed(const std::vector<std::string>& names) {
    constexpr std::size_t most = 4;
    std::vector<std::string> shown;
    for (std::size_t index = 0; index < std::min(most, names.size()); ++index) shown.push_back(shortened(names[index]));
    if (names.size() > most) shown.push_back(fmt::format("and {} more", names.size() - most));
    return fmt::format("{}", fmt::join(shown, ", "));
  }

  std::vector<std::string> missing_;
  std::vector<std::string> unexpected_;
  std::vector<std::string> misshapen_;
};

bool is_weight_type(c10::ScalarType type) {
  return type == at::kFloat || type == at::kHalf || type == at::kBFloat16 || type == at::kDouble;
}

}  // namespace

bool has_weights(const std::filesystem::path& folder) {
  return is_there(folder / single_file) || is_there(folder / index_file);
}

ModelWeights::ModelWeights(const std::filesystem::path& folder, ModelConfig model) : model_(std::move(model)) {
  open(folder);
  // Files of GPT-2 itself leave the first word out.
  const auto has_prefix = [](const auto& place) { return place.first.starts_with(gpt2_prefix); };
  if (model_.family == ModelFamily::Gpt2 && std::none_of(places_.begin(), places_.end(), has_prefix)) {
    std::map<std::string, Place> prefixed;
    for (auto& [name, place] : places_)
      prefixed.emplace(name == "lm_head.weight" ? name : std::string(gpt2_prefix) + name, std::move(place));
    places_ = std::move(prefixed);
  }
  check(folder);
}

void ModelWeights::open(const std::filesystem::path& folder) {
  if (is_there(folder / single_file)) {
    files_.push_back(SafetensorsFile::open(folder / single_file));
    for (const std::string& name : files_.front().names()) places_.emplace(name, Place{0, name});
    return;
  }
  if (!is_there(folder / index_file))
    throw bad_input(fmt::format("{} has no {} and no {}", folder.string(), single_file, index_file),
                    "the weights of the model", "put them there, or set `from_scratch` to begin with new ones");
  const std::map<std::string, std::string> file_of = read_weight_index(folder / index_file);
  std::map<std::string, std::size_t> opened;
  for (const auto& [name, file] : file_of) {
    auto found = opened.find(file);
    if (found == opened.end()) {
      found = opened.emplace(file, files_.size()).first;
      files_.push_back(SafetensorsFile::open(folder / file));
    }
    if (!files_[found->second].contains(name))
      throw bad_input(
          fmt::format("{} has no tensor {}, which the index places there", (folder / file).string(), shortened(name)),
          "the files that the index was written with", "download the folder again");
    places_.emplace(name, Place{found->second, name});
  }
}

void ModelWeights::check(const std::filesystem::path& folder) const {
  Differences differences;
  std::set<std::string> known;
  bool differs = false;
  for (std::int64_t layer = 0; layer < model_.decoder.layers + 2; ++layer) {
    for (const LayerWeight& weight : weights_of_layer(model_, layer)) {
      for (const WeightPiece& piece : weight.pieces) {
        if (!known.insert(piece.name).second) continue;  // what is tied
        const auto place = places_.find(piece.name);
        if (place == places_.end()) {
          differences.add_missing(piece.name);
          differs = true;
          continue;
        }
        const TensorForm form = files_[place->second.file].form(place->second.name);
        if (form.shape == piece.shape && is_weight_type(form.dtype)) continue;
        const std::string type = is_weight_type(form.dtype) ? "" : fmt::format(" of {}", c10::toString(form.dtype));
        differences.add_misshapen(piece.name, text_of(form.shape) + type, text_of(piece.shape));
        differs = true;
      }
    }
  }
  for (const auto& [name, place] : places_) {
    if (known.contains(name) || may_be_ignored(model_, name)) continue;
    differences.add_unexpected(name);
    differs = true;
  }
  if (differs)
    throw bad_input(
        fmt::format("the tensors of {} are not those of its config.json: {}", folder.string(), differences.text()),
        fmt::format("those of a {} of {}", word_of(model_.family), counted(model_.decoder.layers, "layer")),
        "use weights and config.json that were published together");
  check_tied_head(folder);
}

// Some files hold the head of a tied model once more. Where it is another one, the model is not tied, whatever its
// configuration says.
void ModelWeights::check_tied_head(const std::filesystem::path& folder) const {
  const auto head = places_.find("lm_head.weight");
  if (!model_.decoder.tied_head || head == places_.end()) return;
  const std::string embedding = weights_of_layer(model_, 0).front().pieces.front().name;
  const Place& tied_to = places_.at(embedding);
  if (files_[head->second.file].holds_same(head->second.name, files_[tied_to.file], tied_to.name)) return;
  throw bad_input(fmt::format("lm_head.weight of {} is another matrix than {}, and config.json ties the two",
                              folder.string(), embedding),
                  "the same matrix, or none for the head", "set tie_word_embeddings to false in config.json");
}

at::Tensor ModelWeights::read(const std::string& name) const {
  const Place& place = places_.at(name);
  return files_[place.file].read(place.name);
}

void ModelWeights::fill(std::int64_t layer, torch::nn::Module& module) const {
  const auto parameters = module.named_parameters();
  for (const LayerWeight& weight : weights_of_layer(model_, layer)) {
    const at::Tensor parameter = parameters[weight.name].detach();
    check_invariant(parameter.sizes().vec() == weight.shape, "a parameter of another shape than its pieces fill");
    for (const WeightPiece& piece : weight.pieces) {
      const at::Tensor published = read(piece.name);
      rows_of(parameter, piece.first_row, piece.rows).copy_(piece.transposed ? published.t() : published);
    }
  }
}

}  // namespace penstock
