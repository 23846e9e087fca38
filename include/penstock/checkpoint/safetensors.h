/// \file
/// Files of named tensors in the safetensors layout, which every tool of the field reads. docs/checkpoints.md gives the
/// layout and what penstock accepts of it.
///
///     const auto file = penstock::SafetensorsFile::open("model.safetensors");
///     for (const std::string& name : file.names()) std::cout << name << ' ' << file.read(name).sizes() << '\n';
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace penstock {

/// A tensor and the name by which it is found again.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

/// What a tensor is, without its elements.
struct TensorForm {
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> shape;

  friend bool operator==(const TensorForm&, const TensorForm&) = default;
};

/// Creates or truncates `path` and writes all tensors; the content is on the disk when this returns. A crash leaves a
/// part of the file, so write under a temporary name where that matters (CheckpointWriter does).
///
/// \param tensors strided and defined, on any device, of any shape, with different names that are UTF-8; bool, 8- to
///   64-bit integers, float16, bfloat16, float32, float64, complex64 and the 8-bit floats e4m3fn and e5m2. What is not
///   contiguous or not on the CPU is copied, one tensor at a time. Nothing else is copied.
/// \param metadata free text by key, in the file's header.
///
/// The order of `tensors` does not matter: equal tensors give equal files.
/// \throws Error (BadInput) for a tensor that the layout cannot hold, Error (RunFailed) where the disk is full or the
///   file cannot be written.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata);

/// A tensor that is to be written: its name and form are known before it is there.
struct TensorToWrite {
  std::string name;
  TensorForm form;
};

/// The same for tensors that are made one at a time, in the order given (those of larger elements first): no two of
/// them are held at once.
/// \param make gives the tensor of that place in `tensors`, which must have its form.
/// \throws Error as `write_safetensors`, and whatever `make` throws.
void write_safetensors_one_by_one(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                                  const std::function<at::Tensor(std::size_t)>& make,
                                  const std::map<std::string, std::string>& metadata);

/// An open safetensors file. Its header is checked as a whole on opening, so a file that opens has every tensor that it
/// names. Tensors are read on demand with positioned reads, not through a mapping: a file that another program cuts
/// short while it is open gives an error, not a signal. No number in the file makes it allocate more than the file is
/// long. Const members may be called from any thread; the file stays readable after it is deleted.
class SafetensorsFile {
 public:
  /// \throws Error (BadInput) that names the file and what is wrong with it.
  [[nodiscard]] static SafetensorsFile open(const std::filesystem::path& path);

  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  /// All names, sorted.
  [[nodiscard]] std::vector<std::string> names() const;
  /// Whether there is a tensor of that name.
  [[nodiscard]] bool contains(std::string_view name) const;

  /// What the header says of a tensor. \throws Error (BadInput) where there is no such tensor.
  [[nodiscard]] TensorForm form(std::string_view name) const;

  /// A contiguous CPU tensor that owns its memory.
  /// \throws Error (BadInput) where there is no such tensor or the file can no longer be read, Error (RunFailed) where
  ///   there is not enough memory.
  [[nodiscard]] at::Tensor read(std::string_view name) const;

  /// Whether a tensor has the form and the bytes of one of `other`. Holds a few of their bytes at a time.
  /// \throws Error (BadInput) as `read`.
  [[nodiscard]] bool holds_same(std::string_view name, const SafetensorsFile& other, std::string_view other_name) const;

  /// The free text of the header; empty where the file has none.
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;

 private:
  struct State;
  explicit SafetensorsFile(std::unique_ptr<const State> state);

  std::unique_ptr<const State> state_;
};

}  // namespace penstock
