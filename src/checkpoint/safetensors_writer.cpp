#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <numeric>
#include <set>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "checkpoint/checksum.h"
#include "checkpoint/json_events.h"
#include "checkpoint/safetensors_header.h"
#include "checkpoint/tensor_dtype.h"

namespace penstock {
namespace {

/// A tensor with its type in the file, which every tensor has been checked to have.
struct Planned {
  const NamedTensor* source = nullptr;
  SafetensorsDtype dtype = SafetensorsDtype::U8;
};

Planned plan_tensor(const NamedTensor& named) {
  const at::Tensor& tensor = named.tensor;
  const auto refuse = [&](const std::string& what) {
    return bad_input(fmt::format("the tensor {} is {}", in_quotes(named.name), what),
                     "a dense tensor of a type that safetensors has", "convert it before it is written");
  };
  if (named.name.empty() || named.name == "__metadata__")
    throw bad_input(fmt::format("a tensor named {}", in_quotes(named.name)),
                    "a name that is neither empty nor __metadata__", "give it another name");
  if (!tensor.defined()) throw refuse("undefined");
  if (tensor.layout() != at::kStrided || tensor.is_meta() || tensor.is_quantized())
    throw refuse("sparse, quantized or without data");
  if (static_cast<std::size_t>(tensor.dim()) > safetensors_most_dimensions) throw refuse("of more than 64 dimensions");
  const auto dtype = safetensors_dtype(tensor.scalar_type());
  if (!dtype) throw refuse(fmt::format("of type {}", c10::toString(tensor.scalar_type())));
  return {&named, *dtype};
}

/// By falling element size, then by name: then every tensor lies aligned to its elements, as the header is padded to 8.
std::vector<Planned> plan_order(std::span<const NamedTensor> tensors) {
  std::vector<Planned> planned;
  planned.reserve(tensors.size());
  for (const NamedTensor& named : tensors) planned.push_back(plan_tensor(named));
  std::ranges::sort(planned, [](const Planned& a, const Planned& b) {
    const auto a_bytes = size_of(a.dtype);
    const auto b_bytes = size_of(b.dtype);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a.source->name < b.source->name;
  });
  return planned;
}

}  // namespace

FileSum write_summed_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                                 const std::map<std::string, std::string>& metadata) {
  const std::vector<Planned> planned = plan_order(tensors);
  SafetensorsHeader header{{}, metadata};
  std::vector<std::string> order;
  std::uint64_t reached = 0;
  for (const Planned& each : planned) {
    const at::Tensor& tensor = each.source->tensor;
    const auto bytes = static_cast<std::uint64_t>(tensor.numel()) * size_of(each.dtype);
    const SafetensorsEntry entry{each.dtype, tensor.sizes().vec(), reached, reached + bytes};
    if (!header.tensors.emplace(each.source->name, entry).second)
      throw bad_input(fmt::format("two tensors named {}", in_quotes(each.source->name)), "different names",
                      "rename one of them");
    order.push_back(each.source->name);
    reached += bytes;
  }
  const std::string beginning = format_safetensors_header(header, order);

  Checksum checksum;
  FileWriter writer(path);
  const auto write = [&](const void* data, std::size_t size) {
    checksum.add(data, size);
    writer.write(data, size);
  };
  write(beginning.data(), beginning.size());
  for (const Planned& each : planned) {
    const at::Tensor dense = each.source->tensor.detach().resolve_conj().resolve_neg().cpu().contiguous();
    write(dense.const_data_ptr(), dense.nbytes());
  }
  writer.sync_and_close();
  return {beginning.size() + reached, checksum.text()};
}

void write_safetensors_one_by_one(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                                  const std::function<at::Tensor(std::size_t)>& make,
                                  const std::map<std::string, std::string>& metadata) {
  const auto dtype_of = [&](std::size_t place) {
    const auto dtype = safetensors_dtype(tensors[place].form.dtype);
    if (!dtype)
      throw bad_input(fmt::format("the tensor {} is of type {}", in_quotes(tensors[place].name),
                                  c10::toString(tensors[place].form.dtype)),
                      "a type that safetensors has", "convert it before it is written");
    return *dtype;
  };
  std::vector<std::size_t> places(tensors.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  std::ranges::stable_sort(places, std::greater(), [&](std::size_t place) { return size_of(dtype_of(place)); });
  SafetensorsHeader header{{}, metadata};
  std::vector<std::string> order;
  std::uint64_t reached = 0;
  for (const std::size_t place : places) {
    const auto& [name, form] = tensors[place];
    const auto bytes = dense_bytes(dtype_of(place), form.shape);
    check_invariant(bytes.has_value(), "a tensor to be written that no memory holds");
    if (!header.tensors.emplace(name, SafetensorsEntry{dtype_of(place), form.shape, reached, reached + *bytes}).second)
      throw bad_input(fmt::format("two tensors named {}", in_quotes(name)), "different names", "rename one of them");
    order.push_back(name);
    reached += *bytes;
  }
  const std::string beginning = format_safetensors_header(header, order);
  FileWriter writer(path);
  writer.write(beginning.data(), beginning.size());
  for (const std::size_t place : places) {
    const at::Tensor dense = make(place).detach().cpu().contiguous();
    check_invariant(
        dense.sizes().vec() == tensors[place].form.shape && dense.scalar_type() == tensors[place].form.dtype,
        "a tensor is written in the form that its header says");
    writer.write(dense.const_data_ptr(), dense.nbytes());
  }
  writer.sync_and_close();
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  write_summed_safetensors(path, tensors, metadata);
}

}  // namespace penstock
