#include "transport/link/message.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/transport/layout.h"

#include "transport/link/wire_tensor.h"

namespace penstock {
namespace {

// Copies a part of a message, given by its offset in the bytes of all tensors together, to or from them.
template <typename Copy>
void for_each_piece(const std::vector<at::Tensor>& tensors, std::uint64_t offset, std::size_t count, Copy copy) {
  std::size_t done = 0;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    const auto bytes = static_cast<std::uint64_t>(tensor.nbytes());
    if (offset >= bytes) {
      offset -= bytes;
      continue;
    }
    if (done == count) return;
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(bytes - offset, count - done));
    copy(static_cast<std::byte*>(tensor.data_ptr()) + offset, done, piece);
    done += piece;
    offset = 0;
  }
}

// What comes in frames. The other would refuse what is beyond the largest.
std::uint64_t bytes_in_frames(const Layouts& layouts, std::uint64_t most) {
  const auto in_frames = bytes_of(layouts, /*on_device=*/false, most);
  if (!in_frames || !bytes_of(layouts, /*on_device=*/true, most))
    throw bad_input(fmt::format("a message of more than {} bytes between processes", most),
                    "less, from the first element of each tensor to its last",
                    "use more microbatches, or let the layer return contiguous tensors");
  return in_frames->in_transit;
}

}  // namespace

Outgoing outgoing_message(const FrameAddress& address, const std::vector<at::Tensor>& tensors,
                          const std::optional<at::Device>& device, std::uint64_t largest,
                          std::vector<at::Tensor>& on_device) {
  Outgoing outgoing;
  outgoing.frame.kind = FrameKind::Message;
  outgoing.frame.address = address;
  outgoing.layouts = layouts_of(tensors, device);
  outgoing.frame.message_bytes = bytes_in_frames(outgoing.layouts, largest);
  outgoing.tensors.reserve(tensors.size());
  for (std::size_t index = 0; index < tensors.size(); ++index) {
    const bool beside_frames = outgoing.layouts[index].on_device;
    at::Tensor goes = for_wire(tensors[index], outgoing.layouts[index], !beside_frames);
    if (beside_frames) {
      on_device.push_back(std::move(goes));
      outgoing.tensors.emplace_back();
      continue;
    }
    if (!goes.is_same(tensors[index])) outgoing.originals.push_back(tensors[index]);
    outgoing.tensors.push_back(std::move(goes));
  }
  return outgoing;
}

void enqueue(std::deque<Outgoing>& queue, Outgoing outgoing, Place place) {
  const bool under_way = !queue.empty() && queue.front().frame.kind == FrameKind::Continuation;
  queue.insert(place == Place::InFront ? queue.begin() + (under_way ? 1 : 0) : queue.end(), std::move(outgoing));
}

void MessageWriter::begin(Outgoing& outgoing) {
  if (outgoing.frame.kind != FrameKind::Message) return;
  outgoing.frame.with_layouts = !layouts_.same_as_last(outgoing.frame.address, outgoing.layouts);
}

std::size_t MessageWriter::write(Outgoing& outgoing, std::span<std::byte> into) {
  const std::size_t begin = frames_.begin(outgoing.frame, outgoing.layouts, into);
  std::size_t end = begin;
  if (!outgoing.reason.empty()) {
    std::memcpy(into.data() + begin, outgoing.reason.data(), outgoing.reason.size());
    end += outgoing.reason.size();
  }
  const bool more_layouts = FrameWriter::has_more_layouts(outgoing.frame, outgoing.layouts);
  const auto part = more_layouts ? 0
                                 : static_cast<std::size_t>(std::min<std::uint64_t>(
                                       outgoing.frame.message_bytes - outgoing.sent, largest_frame_bytes - begin));
  for_each_piece(outgoing.tensors, outgoing.sent, part, [&](const std::byte* from, std::size_t at, std::size_t count) {
    std::memcpy(into.data() + begin + at, from, count);
  });
  end += part;
  FrameWriter::finish(into, begin, end);
  outgoing.sent += part;
  outgoing.frame.kind = outgoing.frame.kind == FrameKind::Message ? FrameKind::Continuation : outgoing.frame.kind;
  outgoing.frame.with_layouts = more_layouts;
  return end;
}

std::optional<Arrived> MessageAssembly::add(const Incoming& incoming) {
  if (incoming.first) begin(incoming);
  for_each_piece(tensors_, incoming.offset, incoming.bytes.size(),
                 [&](std::byte* into, std::size_t at, std::size_t count) {
                   std::memcpy(into, incoming.bytes.data() + at, count);
                 });
  if (!incoming.last) return std::nullopt;
  return finished(*incoming.layouts);
}

// What comes from device to device is received at once, in the order of the frames, whatever is asked for first.
void MessageAssembly::begin(const Incoming& incoming) {
  const FrameAddress& address = incoming.address;
  address_ = address;
  tensors_ = landings_for(*incoming.layouts);
  expected_ = {};
  if (!std::ranges::any_of(*incoming.layouts, &TensorLayout::on_device)) return;
  if (devices_ == nullptr || !devices_->device_between({address.from}, {address.to}))
    throw run_failed(fmt::format("a tensor on a device from rank {} to rank {}", address.from, address.to),
                     "its bytes in frames", "start every process of the run with the same penstock");
  expected_ = devices_->receive({address.from}, {address.to}, *incoming.layouts);
}

Arrived MessageAssembly::finished(const Layouts& layouts) {
  Arrived arrived{address_, std::exchange(tensors_, {}), std::exchange(expected_.wait, {}), {}};
  if (!expected_.tensors.empty()) arrived.on_device = bytes_of(expected_.tensors);
  auto on_device = expected_.tensors.begin();
  for (std::size_t index = 0; index < arrived.tensors.size(); ++index) {
    const TensorLayout& layout = layouts[index];
    at::Tensor& tensor = arrived.tensors[index];
    if (layout.on_device) {
      tensor = std::move(*on_device++);
    } else if (!layout.strides.empty()) {
      const UncountedScope uncounted;
      tensor = landed(layout, tensor);
    }
    if (layout.takes_gradient) tensor.requires_grad_();
  }
  return arrived;
}

}  // namespace penstock
