#include "penstock/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <utility>

#include <ATen/ops/empty.h>

#include "penstock/base/error.h"
#include "penstock/base/read_only_file.h"

#include "checkpoint/json_events.h"
#include "checkpoint/safetensors_header.h"
#include "checkpoint/tensor_dtype.h"

namespace penstock {

struct SafetensorsFile::State {
  ReadOnlyFile file;
  std::uint64_t data_begin = 0;
  SafetensorsHeader header;

  [[nodiscard]] const SafetensorsEntry& entry(std::string_view name) const {
    const auto found = header.tensors.find(name);
    if (found == header.tensors.end())
      throw bad_input(fmt::format("{} has no tensor {}", file.name(), in_quotes(name)), "a name that names() returns",
                      "check the name, or use the file that holds it");
    return found->second;
  }
};

SafetensorsFile::SafetensorsFile(std::unique_ptr<const State> state) : state_(std::move(state)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  ReadOnlyFile file(path);
  std::array<unsigned char, safetensors_length_bytes> first{};
  if (file.size() >= first.size()) file.read(0, std::as_writable_bytes(std::span(first)));
  const std::uint64_t length = safetensors_header_length(first, file.size(), file.name());
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(safetensors_length_bytes, std::as_writable_bytes(std::span(text)));
  const std::uint64_t data_begin = safetensors_length_bytes + length;
  SafetensorsHeader header = parse_safetensors_header(text, file.size() - data_begin, file.name());
  return SafetensorsFile(std::make_unique<const State>(State{std::move(file), data_begin, std::move(header)}));
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : state_->header.tensors) names.push_back(name);
  return names;
}

bool SafetensorsFile::contains(std::string_view name) const { return state_->header.tensors.contains(name); }

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return state_->header.metadata; }

TensorForm SafetensorsFile::form(std::string_view name) const {
  const SafetensorsEntry& entry = state_->entry(name);
  return {scalar_type(entry.dtype), entry.shape};
}

at::Tensor SafetensorsFile::read(std::string_view name) const {
  const SafetensorsEntry& entry = state_->entry(name);
  at::Tensor tensor;
  try {
    tensor = at::empty(entry.shape, at::TensorOptions().dtype(scalar_type(entry.dtype)));
  } catch (const c10::Error&) {
    throw run_failed(fmt::format("no memory for {} of {}", in_quotes(name), state_->file.name()),
                     fmt::format("{} free bytes", entry.end - entry.begin), "free some memory or use more stages");
  }
  state_->file.read(state_->data_begin + entry.begin,
                    std::span(static_cast<std::byte*>(tensor.mutable_data_ptr()), entry.end - entry.begin));
  return tensor;
}

bool SafetensorsFile::holds_same(std::string_view name, const SafetensorsFile& other,
                                 std::string_view other_name) const {
  constexpr std::uint64_t at_once = 1 << 20;
  if (form(name) != other.form(other_name)) return false;
  const SafetensorsEntry& entry = state_->entry(name);
  const SafetensorsEntry& other_entry = other.state_->entry(other_name);
  std::vector<std::byte> ours(at_once);
  std::vector<std::byte> theirs(at_once);
  for (std::uint64_t done = 0; done < entry.end - entry.begin; done += at_once) {
    const auto bytes = static_cast<std::size_t>(std::min(at_once, entry.end - entry.begin - done));
    state_->file.read(state_->data_begin + entry.begin + done, std::span(ours).first(bytes));
    other.state_->file.read(other.state_->data_begin + other_entry.begin + done, std::span(theirs).first(bytes));
    if (!std::ranges::equal(std::span(ours).first(bytes), std::span(theirs).first(bytes))) return false;
  }
  return true;
}

}  // namespace penstock
