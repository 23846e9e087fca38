// Between tensors and the bytes of theirs that a link brings.
#pragma once

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "penstock/wire/frame.h"

namespace penstock {

// While it stands, no meter of its thread sees what is allocated or freed: messages are counted by whoever
// receives them, whichever thread takes the frames.
class UncountedScope {
 public:
  UncountedScope();

 private:
  c10::DebugInfoGuard guard_;
};

// What goes of a tensor, in dense memory: as many bytes as `bytes_of` says of its layout, from `data_ptr` on; undefined
// where there are none. On the host where `to_host`, otherwise where the tensor is. The tensor itself or a view of it
// where its memory can go as it is; a copy on the host has memory that no meter sees. \pre it is plain strided memory
[[nodiscard]] at::Tensor for_wire(const at::Tensor& tensor, const TensorLayout& layout, bool to_host);

// Memory for what comes of a tensor, of as many bytes. \pre it is defined
[[nodiscard]] at::Tensor landing_for(const TensorLayout& layout, at::Device device);
// Memory of the tensor where that is not what lands, as there are gaps in it; otherwise undefined. A dimension of
// stride 0 has the size 1 in it.
[[nodiscard]] at::Tensor room_with_gaps(const TensorLayout& layout, at::Device device);
// The tensor, on the host, once its bytes have landed. Should be called in the scope above.
[[nodiscard]] at::Tensor landed(const TensorLayout& layout, const at::Tensor& landing);

// The landings of a message's tensors that come in frames; undefined for the others. They count at no meter.
[[nodiscard]] std::vector<at::Tensor> landings_for(const Layouts& layouts);

// A message's layouts. `device`: where tensors on it go directly. Throws Error (BadInput) for too many tensors, and for
// what `layout_of` refuses.
[[nodiscard]] Layouts layouts_of(const std::vector<at::Tensor>& tensors, const std::optional<at::Device>& device);

}  // namespace penstock
