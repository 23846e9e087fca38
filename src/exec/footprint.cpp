#include "penstock/exec/footprint.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/native/ConvUtils.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "penstock/nn/dropout.h"

#include "exec/counted_allocator.h"
#include "exec/flow.h"

namespace penstock {
namespace {

constexpr double work_per_byte = 10;
constexpr double work_per_multiplication = 2;

// Bytes of this thread while it stands: what is held, and all that was ever written.
struct Counter final : AllocationListener {
  std::int64_t held = 0;
  std::int64_t written = 0;

  void reportMemoryUsage(void* /*pointer*/, std::int64_t bytes, std::size_t /*allocated*/, std::size_t /*reserved*/,
                         c10::Device /*device*/) override {
    held += bytes;
    written += std::max<std::int64_t>(bytes, 0);
  }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
};

double elements(const c10::IValue& tensor) { return static_cast<double>(tensor.toTensor().numel()); }
double size(const c10::IValue& tensor, std::int64_t dimension) {
  return static_cast<double>(tensor.toTensor().size(dimension));
}

// Each weight of an output channel meets each place of the output; transposed, of the input.
double convolution_multiplications(c10::ArrayRef<const c10::IValue> inputs) {
  const at::Tensor& input = inputs[0].toTensor();
  const at::Tensor& weight = inputs[1].toTensor();
  const bool transposed = inputs[6].toBool();
  const double for_each_place = elements(inputs[1]) / static_cast<double>(weight.size(0));
  if (transposed) return elements(inputs[0]) * for_each_place;
  const auto output = at::native::conv_output_size(input.sizes(), weight.sizes(), inputs[4].toIntVector(),
                                                   inputs[3].toIntVector(), inputs[5].toIntVector());
  return std::accumulate(output.begin(), output.end(), for_each_place,
                         [](double product, std::int64_t next) { return product * static_cast<double>(next); });
}

double multiplications(const at::RecordFunction& call) {
  const std::string_view name = call.name();
  const auto inputs = call.inputs();
  if (name == "aten::mm" || name == "aten::bmm") return elements(inputs[0]) * size(inputs[1], -1);
  if (name == "aten::addmm" || name == "aten::baddbmm") return elements(inputs[1]) * size(inputs[2], -1);
  if (name == "aten::_scaled_dot_product_flash_attention_for_cpu")
    return elements(inputs[0]) * (size(inputs[1], -2) + size(inputs[2], -2));
  return name == "aten::convolution" ? convolution_multiplications(inputs) : 0;
}

// The operations of this thread's products while it stands. Does not nest: callbacks are plain functions.
class Products {
 public:
  Products()
      : handle_(at::addThreadLocalCallback(
            at::RecordFunctionCallback(count).needsInputs(true).scopes({at::RecordScope::FUNCTION}))) {
    found = 0;
  }
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;
  Products(Products&&) = delete;
  Products& operator=(Products&&) = delete;
  ~Products() { at::removeCallback(handle_); }

  static thread_local double found;

 private:
  static std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& call) {
    found += multiplications(call);
    return nullptr;
  }

  at::CallbackHandle handle_;
};
thread_local double Products::found = 0;

std::int64_t bytes_together(const Tensors& tensors) {
  std::int64_t total = 0;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) total += static_cast<std::int64_t>(tensor.nbytes());
  return total;
}

// As at a cut: leaves.
Tensors as_leaves(const Tensors& tensors) {
  Tensors leaves;
  leaves.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    leaves.push_back(tensor.defined() ? tensor.detach() : tensor);
    if (tensor.defined() && tensor.requires_grad()) leaves.back().requires_grad_();
  }
  return leaves;
}

// A layer whose forward pass changes them is refused where it would run again (`LayerBuffers`).
std::uint64_t changes_of_parameters(const Layer& layer) {
  std::uint64_t changes = 0;
  for (const at::Tensor& parameter : layer.module().parameters()) changes += parameter._version();
  return changes;
}

struct Measured {
  LayerFootprint footprint;
  Tensors outputs;  // leaves
};

Measured measure(const Network& network, std::int64_t index, const Tensors& inputs, Precision precision) {
  const at::AutoGradMode graph(true);
  const Layer layer = build_layer(network, index, 0, at::kCPU);
  const PrecisionScope in(precision, at::kCPU);
  const DrawScope draws({0, 0, 0, index});
  const std::uint64_t changes = changes_of_parameters(layer);
  const auto counter = std::make_shared<Counter>();
  const c10::DebugInfoGuard counting(c10::DebugInfoKind::PROFILER_STATE, counter);
  const Products products;
  Measured measured;
  {
    const Tensors outputs = layer.forward(inputs);
    // An output that shares its input's memory is none of its own: at worst a layer is thought to keep less.
    const std::int64_t kept = std::max<std::int64_t>(0, counter->held - bytes_together(outputs));
    measured.footprint.kept = {changes_of_parameters(layer) == changes ? kept : 0};
    measured.outputs = as_leaves(outputs);
  }
  measured.footprint.work =
      work_per_multiplication * Products::found + work_per_byte * static_cast<double>(counter->written);
  return measured;
}

// Kind, and for each input its dtype and sizes.
using KindAndShapes = std::pair<std::string, std::vector<std::int64_t>>;
KindAndShapes kind_and_shapes(const std::string& kind, const Tensors& inputs) {
  KindAndShapes key{kind, {}};
  for (const at::Tensor& input : inputs) {
    key.second.push_back(input.defined() ? static_cast<std::int64_t>(input.scalar_type()) : -1);
    if (!input.defined()) continue;
    key.second.push_back(input.dim());
    key.second.insert(key.second.end(), input.sizes().begin(), input.sizes().end());
  }
  return key;
}

// The bits of a number in reverse order behind the point: 0, 1/2, 1/4, 3/4, 1/8 … The first numbers in the order of
// this are spread evenly over all.
double mirrored(std::size_t number) {
  double result = 0;
  for (double bit = 0.5; number > 0; number /= 2, bit /= 2)
    if (number % 2 == 1) result += bit;
  return result;
}

}  // namespace

std::vector<LayerFootprint> layer_footprints(const Network& network, const Tensors& inputs, Precision precision) {
  check_network(network);
  std::map<KindAndShapes, Measured> known;
  std::vector<LayerFootprint> footprints;
  Flow flow(network.skips, 0, inputs);
  for (std::size_t index = 0; index < network.layers.size(); ++index) {
    const auto layer = static_cast<std::int64_t>(index);
    const Tensors taken = as_leaves(flow.inputs_of(layer));
    const std::string& kind = network.layers[index].kind;
    const auto found = kind.empty() ? known.end() : known.find(kind_and_shapes(kind, taken));
    Measured measured = found == known.end() ? measure(network, layer, taken, precision) : found->second;
    footprints.push_back(measured.footprint);
    flow.put_outputs_of(layer, measured.outputs);
    if (!kind.empty()) known.insert_or_assign(kind_and_shapes(kind, taken), std::move(measured));
  }
  return footprints;
}

std::vector<bool> select_recomputed(const std::vector<LayerFootprint>& footprints) {
  std::vector<std::size_t> order;
  double all = 0;
  for (std::size_t layer = 0; layer + 1 < footprints.size(); ++layer) {
    if (footprints[layer].kept.count <= 0) continue;
    order.push_back(layer);
    all += static_cast<double>(footprints[layer].kept.count);
  }
  const auto worth = [&](std::size_t layer) {
    return static_cast<double>(footprints[layer].kept.count) / std::max(footprints[layer].work, 1.0);
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return worth(a) > worth(b); });
  for (auto first = order.begin(); first != order.end();) {
    const auto end = std::find_if(first, order.end(), [&](std::size_t layer) { return worth(layer) != worth(*first); });
    std::vector<std::pair<double, std::size_t>> equals;
    for (auto layer = first; layer != end; ++layer) equals.emplace_back(mirrored(equals.size()), *layer);
    std::sort(equals.begin(), equals.end());
    for (const auto& [place, layer] : equals) *first++ = layer;
  }
  std::vector<bool> selected(footprints.size(), false);
  double freed = 0;
  for (const std::size_t layer : order) {
    const auto kept = static_cast<double>(footprints[layer].kept.count);
    if (freed + kept / 2 > all / 2) break;  // further from half with it than without
    selected[layer] = true;
    freed += kept;
  }
  return selected;
}

}  // namespace penstock
