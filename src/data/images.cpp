#include "data/images.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/empty.h>

#include "penstock/base/error.h"
#include "penstock/base/read_only_file.h"

#include "data/byte_sequence.h"
#include "data/split.h"

namespace penstock {
namespace {

constexpr std::uint32_t labels_magic = 0x0801;
constexpr std::uint32_t images_magic = 0x0803;
constexpr std::uint32_t channels_magic = 0x0804;
/// More than any image has; keeps every product of the sizes within 64 bits.
constexpr std::uint32_t largest_side = 65'536;

std::uint32_t big_endian(std::span<const std::byte, 4> bytes) {
  std::uint32_t value = 0;
  for (const std::byte byte : bytes) value = (value << 8U) | std::to_integer<std::uint32_t>(byte);
  return value;
}

bool is_idx_magic(std::uint32_t magic) {
  return magic == labels_magic || magic == images_magic || magic == channels_magic;
}

/// The header of an IDX file whose length fits its sizes.
struct IdxFile {
  std::filesystem::path path;
  bool labels = false;
  std::vector<std::int64_t> sizes;  ///< [samples], [samples, rows, columns] or [samples, channels, rows, columns]
  std::uint64_t data_begin = 0;
};

std::uint32_t read_number(const ReadOnlyFile& file, std::uint64_t offset) {
  std::array<std::byte, 4> bytes{};
  if (file.size() < offset + bytes.size())
    throw bad_input(fmt::format("{} is {}", file.name(), counted(static_cast<std::int64_t>(file.size()), "byte")),
                    fmt::format("an IDX header of at least {} bytes", offset + bytes.size()),
                    "use a whole IDX file of images or labels");
  file.read(offset, bytes);
  return big_endian(bytes);
}

IdxFile read_idx(const std::filesystem::path& path) {
  const ReadOnlyFile file(path);
  const std::uint32_t magic = read_number(file, 0);
  if (magic >> 16U == 0x1f8bU)
    throw bad_input(path.string() + " is compressed by gzip", "a plain IDX file", "unpack it with gunzip");
  if (!is_idx_magic(magic))
    throw bad_input(fmt::format("{} begins with 0x{:08x}", path.string(), magic),
                    "0x00000801 (labels), 0x00000803 or 0x00000804 (images of bytes)",
                    "use an IDX file of images or labels");
  IdxFile idx{path, magic == labels_magic, {}, 4};
  std::uint64_t values = 1;
  for (std::uint32_t dimension = 0; dimension < (magic & 0xffU); ++dimension, idx.data_begin += 4) {
    const std::uint32_t size = read_number(file, idx.data_begin);
    // Below the limit, at most 2^32 samples of three sides would be 2^80: refuse what no file can hold, step by step.
    if ((dimension > 0 && size > largest_side) || __builtin_mul_overflow(values, size, &values))
      throw bad_input(fmt::format("{} has the size {} in dimension {}", path.string(), size, dimension),
                      fmt::format("at most {}", largest_side), "use a whole IDX file of images or labels");
    idx.sizes.push_back(size);
  }
  if (file.size() - idx.data_begin != values)
    throw bad_input(fmt::format("{} is {}", path.string(), counted(static_cast<std::int64_t>(file.size()), "byte")),
                    fmt::format("{} bytes for [{}]", idx.data_begin + values, fmt::join(idx.sizes, ", ")),
                    "the file is damaged or was not copied whole: get it again");
  if (values == 0)
    throw bad_input(fmt::format("{} is empty: [{}]", path.string(), fmt::join(idx.sizes, ", ")), "at least one sample",
                    "use another file");
  return idx;
}

/// Both files, opened once for both splits.
struct LabelledImages {
  std::unique_ptr<const ByteSequence> images;
  std::unique_ptr<const ByteSequence> labels;
  std::uint64_t images_begin = 0;
  std::uint64_t labels_begin = 0;
  std::int64_t channels = 1;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

class ImageDataset final : public Dataset {
 public:
  ImageDataset(std::shared_ptr<const LabelledImages> source, const std::vector<Range>& ranges)
      : source_(std::move(source)) {
    for (const Range& range : ranges)
      for (std::int64_t image = range.begin; image < range.end; ++image) images_.push_back(image);
  }

  [[nodiscard]] std::int64_t size() const override { return static_cast<std::int64_t>(images_.size()); }

  [[nodiscard]] Batch batch(std::span<const std::int64_t> samples) const override {
    const auto count = static_cast<std::int64_t>(samples.size());
    const auto& [images, labels, images_begin, labels_begin, channels, rows, columns] = *source_;
    Batch batch{at::empty({count, channels, rows, columns}, at::TensorOptions().dtype(at::kFloat)),
                at::empty({count}, at::TensorOptions().dtype(at::kLong))};
    auto* pixel = batch.input.mutable_data_ptr<float>();
    auto* target = batch.target.mutable_data_ptr<std::int64_t>();
    std::vector<std::byte> bytes(static_cast<std::size_t>(channels * rows * columns));
    for (const std::int64_t sample : samples) {
      check_invariant(sample >= 0 && sample < size(), "a sample's number is below the size of its dataset");
      const auto image = static_cast<std::uint64_t>(images_[static_cast<std::size_t>(sample)]);
      images->copy(images_begin + image * bytes.size(), bytes);
      for (const std::byte byte : bytes) *pixel++ = static_cast<float>(std::to_integer<unsigned>(byte)) / 255.0F;
      std::byte label{};
      labels->copy(labels_begin + image, {&label, 1});
      *target++ = std::to_integer<std::int64_t>(label);
    }
    return batch;
  }

 private:
  std::shared_ptr<const LabelledImages> source_;
  std::vector<std::int64_t> images_;
};

std::int64_t count_classes(const LabelledImages& source) {
  std::int64_t largest = 0;
  source.labels->visit(source.labels_begin, source.labels->size(), [&](std::span<const std::byte> bytes) {
    largest = std::max(largest, std::to_integer<std::int64_t>(std::ranges::max(bytes)));
  });
  return largest + 1;
}

}  // namespace

bool looks_like_idx(const std::filesystem::path& path) {
  try {
    const ReadOnlyFile file(path);
    return file.size() >= 4 && is_idx_magic(read_number(file, 0));
  } catch (const Error&) {
    return false;  // whoever opens it for good gives the error
  }
}

Data open_images(std::span<const std::filesystem::path> files, double held_out) {
  if (files.size() != 2)
    throw bad_input(counted(std::ssize(files), "file") + " for images", "two: an IDX file of images and one of labels",
                    "name both");
  IdxFile images = read_idx(files[0]);
  IdxFile labels = read_idx(files[1]);
  if (images.labels) std::swap(images, labels);
  if (images.labels || !labels.labels)
    throw bad_input(fmt::format("{} and {} both hold {}", images.path.string(), labels.path.string(),
                                images.labels ? "labels" : "images"),
                    "one file of images and one of labels", "name the other file");
  if (images.sizes[0] != labels.sizes[0])
    throw bad_input(fmt::format("{} in {} and {} in {}", counted(images.sizes[0], "image"), images.path.string(),
                                counted(labels.sizes[0], "label"), labels.path.string()),
                    "as many labels as images", "use two files that belong together");
  const std::int64_t samples = images.sizes[0];
  if (held_out > 0 && samples < 2)
    throw bad_input("one image", "at least two, so that one can be held out", "set the held-out share to 0");

  const auto source = std::make_shared<LabelledImages>();
  source->images = std::make_unique<const ByteSequence>(std::span(&images.path, 1));
  source->labels = std::make_unique<const ByteSequence>(std::span(&labels.path, 1));
  source->images_begin = images.data_begin;
  source->labels_begin = labels.data_begin;
  source->channels = images.sizes.size() == 4 ? images.sizes[1] : 1;
  source->rows = images.sizes[images.sizes.size() - 2];
  source->columns = images.sizes.back();
  Data data;
  data.description = {DataKind::Images,       0,      source->channels, source->rows, source->columns,
                      count_classes(*source), samples};
  const Split split = split_samples(samples, held_out);
  data.train = std::make_shared<const ImageDataset>(source, split.train);
  if (held_out > 0) data.held_out = std::make_shared<const ImageDataset>(source, split.held_out);
  return data;
}

}  // namespace penstock
