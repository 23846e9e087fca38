#include "penstock/exec/boundary.h"

#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

#include "exec/moved.h"

namespace penstock {
namespace {

at::Tensor converted(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.detach().to(type).requires_grad_(tensor.requires_grad());
}

}  // namespace

// What a layer itself returned in bfloat16 must not come out as float32: only the sender can tell them apart.
Tensors narrowed(Tensors boundary) {
  const at::Tensor which = at::zeros({static_cast<std::int64_t>(boundary.size())}, at::kByte);
  auto* is_narrowed = which.data_ptr<std::uint8_t>();
  for (std::size_t index = 0; index < boundary.size(); ++index) {
    at::Tensor& tensor = boundary[index];
    if (!tensor.defined() || tensor.scalar_type() != at::kFloat) continue;
    tensor = converted(tensor, at::kBFloat16);
    is_narrowed[index] = 1;
  }
  boundary.push_back(which);
  return boundary;
}

Tensors widened(Tensors message, at::Device device) {
  check_invariant(!message.empty() && message.back().defined() &&
                      message.back().numel() + 1 == static_cast<std::int64_t>(message.size()),
                  "a narrowed boundary says which of its tensors were narrowed");
  const at::Tensor which = message.back().contiguous();
  message.pop_back();
  const auto* is_narrowed = which.const_data_ptr<std::uint8_t>();
  for (std::size_t index = 0; index < message.size(); ++index) {
    message[index] = moved(message[index], device);
    if (is_narrowed[index] != 0) message[index] = converted(message[index], at::kFloat);
  }
  return message;
}

}  // namespace penstock
