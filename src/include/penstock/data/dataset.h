/// \file
/// What a run trains on: text as bytes, files of tokens, images with labels. A dataset is a numbered set of samples; in
/// which order they come is the business of order.h. docs/data.md describes the files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"
#include "penstock/data/order.h"

namespace penstock {

/// Samples side by side, on the CPU, in memory of its own.
struct Batch {
  /// Text and tokens: int64 [batch, context]. Images: float32 [batch, channels, rows, columns] in 0 … 1.
  at::Tensor input;
  /// Text and tokens: int64 [batch, context], the input one position later. Images: int64 [batch], the classes.
  at::Tensor target;
};

/// Samples numbered 0 … size() − 1. Immutable; every member may be called from any thread at any time.
class Dataset {
 public:
  Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  Dataset(Dataset&&) = delete;
  Dataset& operator=(Dataset&&) = delete;
  virtual ~Dataset() = default;

  /// Number of samples, at least 1. For text and tokens every position where a window of context + 1 can start is one.
  [[nodiscard]] virtual std::int64_t size() const = 0;

  /// The samples with these numbers, in this order; a number may occur more than once.
  /// \throws InvariantViolation where a number is not within 0 … size() − 1.
  [[nodiscard]] virtual Batch batch(std::span<const std::int64_t> samples) const = 0;
};

/// Where the data lies and how it is cut.
struct DataSettings {
  /// Text: files and folders. Tokens: files. Images: the file of images and the file of labels, in either order.
  std::vector<std::filesystem::path> paths;
  /// How they are read. Nothing takes `.bin` as tokens16, IDX files (by their first bytes) as images and everything
  /// else as text.
  std::optional<DataKind> kind = {};
  /// Length of an input sequence in tokens, at least 1; images ignore it.
  std::int64_t context = 128;
  /// The share that training never sees, at least 0 and below 1. With 0 there is no held-out dataset.
  double held_out = 0.1;
  /// Of JSON Lines that go through a tokenizer: the member of each object that is the text.
  std::string field = "text";

  friend bool operator==(const DataSettings&, const DataSettings&) = default;
};

/// What a network needs to know about its data. What does not apply to the kind is 0.
struct DataDescription {
  DataKind kind = DataKind::Text;
  /// Text: 256. Tokens: the largest token of all files, plus 1.
  std::int64_t vocabulary = 0;
  /// Images: the shape of one, and the largest label plus 1.
  std::int64_t channels = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t classes = 0;
  /// The size of all that was opened, in both splits: bytes of text, tokens of token files, samples of images.
  std::int64_t bytes_or_samples = 0;
  /// The bytes of the texts that its tokens stand for; 0: not known.
  std::int64_t text_bytes = 0;

  friend bool operator==(const DataDescription&, const DataDescription&) = default;
};

/// Opened data.
struct Data {
  DataDescription description;
  /// Never null.
  std::shared_ptr<const Dataset> train;
  /// Null where `DataSettings::held_out` is 0. No byte, token or image of it is in `train`.
  std::shared_ptr<const Dataset> held_out;
  /// Of a mixture, the sources that the samples of either are numbered through; empty: one, and no mixture.
  std::vector<SourceShare> train_sources = {};
  std::vector<SourceShare> held_out_sources = {};
};

/// Opens data. Large files stay on the disk (they are memory-mapped), so they must not be changed or cut while the data
/// is in use. The same files and settings give the same samples on every machine.
/// \throws Error (BadInput) that names the file: missing, unreadable, empty, shorter than a window, of a wrong size or
///   layout, or a setting out of its range.
[[nodiscard]] Data open_data(const DataSettings& settings);

/// Samples of tokens that are drawn evenly from a vocabulary, the same every time, for what does not depend on which
/// tokens they are. There are 2²⁰ of them.
[[nodiscard]] std::shared_ptr<const Dataset> drawn_tokens(std::int64_t vocabulary, std::int64_t context);

/// Several sources as one, from which samples are drawn by their weights (`SampleOrder`). \param sources opened with
/// the same settings. \param weights of each, at least 1. \throws Error (BadInput) where they are not of one form: text
/// and tokens, or images of other shapes.
[[nodiscard]] Data mixed(const std::vector<Data>& sources, const std::vector<std::int64_t>& weights);

}  // namespace penstock
