// Several datasets as one.
#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/data/dataset.h"

namespace penstock {
namespace {

using Part = std::shared_ptr<const Dataset>;

// Their samples, numbered through.
class Concatenation final : public Dataset {
 public:
  explicit Concatenation(std::vector<Part> parts) : parts_(std::move(parts)) {
    for (const Part& part : parts_) ends_.push_back((ends_.empty() ? 0 : ends_.back()) + part->size());
  }

  [[nodiscard]] std::int64_t size() const override { return ends_.back(); }

  [[nodiscard]] Batch batch(std::span<const std::int64_t> samples) const override {
    Batch whole;
    const auto rows = static_cast<std::int64_t>(samples.size());
    std::int64_t first = 0;
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      std::vector<std::int64_t> places;
      std::vector<std::int64_t> numbers;
      for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t sample = samples[static_cast<std::size_t>(row)];
        check_invariant(sample >= 0 && sample < size(), "a sample's number is below the size of its dataset");
        if (sample < first || sample >= ends_[part]) continue;
        places.push_back(row);
        numbers.push_back(sample - first);
      }
      first = ends_[part];
      if (numbers.empty()) continue;
      const Batch own = parts_[part]->batch(numbers);
      const at::Tensor at_places = at::tensor(places, at::kLong);
      put(whole.input, own.input, at_places, rows);
      put(whole.target, own.target, at_places, rows);
    }
    return whole;
  }

 private:
  static void put(at::Tensor& whole, const at::Tensor& own, const at::Tensor& places, std::int64_t rows) {
    if (!whole.defined()) {
      std::vector<std::int64_t> shape = own.sizes().vec();
      shape.front() = rows;
      whole = at::empty(shape, own.options());
    }
    whole.index_copy_(0, places, own);
  }

  std::vector<Part> parts_;
  std::vector<std::int64_t> ends_;
};

bool are_tokens(DataKind kind) { return kind == DataKind::Tokens16 || kind == DataKind::Tokens32; }

void check_alike(const DataDescription& first, const DataDescription& other) {
  if (first.kind != other.kind && !(are_tokens(first.kind) && are_tokens(other.kind)))
    throw bad_input(fmt::format("sources of {} and of {}", word_of(first.kind), word_of(other.kind)),
                    "sources of one kind", "name others with `data`");
  if (first.channels != other.channels || first.rows != other.rows || first.columns != other.columns)
    throw bad_input(fmt::format("images of {}x{}x{} and of {}x{}x{}", first.channels, first.rows, first.columns,
                                other.channels, other.rows, other.columns),
                    "images of one shape", "name others with `data`");
}

DataDescription together(const std::vector<Data>& sources) {
  DataDescription whole = sources.front().description;
  for (std::size_t source = 1; source < sources.size(); ++source) {
    const DataDescription& own = sources[source].description;
    check_alike(whole, own);
    whole.kind = std::max(whole.kind, own.kind);
    whole.vocabulary = std::max(whole.vocabulary, own.vocabulary);
    whole.classes = std::max(whole.classes, own.classes);
    whole.bytes_or_samples += own.bytes_or_samples;
    whole.text_bytes = whole.text_bytes > 0 && own.text_bytes > 0 ? whole.text_bytes + own.text_bytes : 0;
  }
  return whole;
}

}  // namespace

Data mixed(const std::vector<Data>& sources, const std::vector<std::int64_t>& weights) {
  check_invariant(!sources.empty() && sources.size() == weights.size(), "a mixture has a weight for each source");
  Data whole;
  whole.description = together(sources);
  std::vector<Part> train;
  std::vector<Part> held_out;
  for (std::size_t source = 0; source < sources.size(); ++source) {
    train.push_back(sources[source].train);
    whole.train_sources.push_back({sources[source].train->size(), weights[source]});
    if (!sources[source].held_out) continue;
    held_out.push_back(sources[source].held_out);
    whole.held_out_sources.push_back({sources[source].held_out->size(), weights[source]});
  }
  whole.train = std::make_shared<const Concatenation>(std::move(train));
  if (!held_out.empty()) whole.held_out = std::make_shared<const Concatenation>(std::move(held_out));
  return whole;
}

}  // namespace penstock
