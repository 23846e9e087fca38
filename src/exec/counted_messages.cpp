#include "penstock/exec/counted_messages.h"

#include <cstddef>
#include <unordered_map>
#include <utility>

#include "penstock/transport/layout.h"

namespace penstock {
namespace {

// How often a message itself refers to what its tensors are made of.
struct References {
  std::unordered_map<const void*, std::size_t> to_tensors;
  std::unordered_map<const void*, std::size_t> to_storages;  // by tensors, each once
};

References references_of(const std::vector<at::Tensor>& message) {
  References references;
  for (const at::Tensor& tensor : message) {
    if (!tensor.defined()) continue;
    const bool first = ++references.to_tensors[tensor.unsafeGetTensorImpl()] == 1;
    if (first && tensor.has_storage()) ++references.to_storages[tensor.storage().unsafeGetStorageImpl()];
  }
  return references;
}

}  // namespace

void copy_what_others_hold(std::vector<at::Tensor>& message) {
  const References references = references_of(message);
  std::vector<bool> others_hold(message.size());
  for (std::size_t index = 0; index < message.size(); ++index) {
    const at::Tensor& tensor = message[index];
    if (!tensor.defined() || !tensor.has_storage()) continue;
    others_hold[index] =
        tensor.use_count() != references.to_tensors.at(tensor.unsafeGetTensorImpl()) ||
        tensor.storage().use_count() != references.to_storages.at(tensor.storage().unsafeGetStorageImpl());
  }
  for (std::size_t index = 0; index < message.size(); ++index) {
    if (!others_hold[index]) continue;
    at::Tensor copy = copy_in_same_layout(message[index], message[index].device());
    if (message[index].requires_grad()) copy.requires_grad_();
    message[index] = std::move(copy);
  }
}

void send_counted(Transport& transport, RankId to, const Tag& tag, std::vector<at::Tensor> message) {
  copy_what_others_hold(message);
  MemoryMeter::hand_over(message);
  transport.send(to, tag, std::move(message));
}

std::vector<at::Tensor> receive_counted(Transport& transport, MemoryMeter& memory, RankId from, const Tag& tag) {
  std::vector<at::Tensor> message = transport.receive(from, tag);
  memory.take_over(message);
  return message;
}

}  // namespace penstock
