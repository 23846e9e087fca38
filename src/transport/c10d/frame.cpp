#include "transport/c10d/frame.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::array<char, 4> magic{'P', 'S', 'T', 'K'};
constexpr std::uint16_t format_version = 1;
constexpr std::size_t most_remembered_layouts = std::size_t{1} << 16U;

Error refused(const std::string& got, const std::string& expected) {
  return run_failed("a message with " + got, expected,
                    "start every process of the run with the same penstock, and no other program on its port");
}

template <typename Value>
Value read_at(std::span<const std::byte> bytes, std::size_t offset) {
  Value value;
  std::memcpy(&value, bytes.data() + offset, sizeof(Value));
  return value;
}

template <typename Value>
void write_at(std::span<std::byte> bytes, std::size_t offset, Value value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(Value));
}

// One byte of dtype, with a bit for `takes_gradient` and one for `on_device`, one of dimensions, eight for each size.
constexpr unsigned gradient_bit = 0x80;
constexpr unsigned device_bit = 0x40;

std::size_t layout_bytes(const Layouts& layouts) {
  std::size_t bytes = 0;
  for (const TensorLayout& layout : layouts) bytes += 2 + 8 * layout.sizes.size();
  return bytes;
}

TensorLayout read_layout(std::span<const std::byte>& bytes) {
  if (bytes.size() < 2) throw refused("a layout that is cut short", "a dtype and dimensions for every tensor");
  const auto first = std::to_integer<unsigned>(bytes[0]);
  const auto dtype = first & ~(gradient_bit | device_bit);
  const auto dimensions = std::to_integer<std::size_t>(bytes[1]);
  if (dtype > static_cast<unsigned>(WireDtype::BFloat16))
    throw refused(fmt::format("the dtype {}", dtype), fmt::format("at most {}", static_cast<int>(WireDtype::BFloat16)));
  if (dimensions > most_dimensions || bytes.size() < 2 + 8 * dimensions)
    throw refused(fmt::format("a tensor of {} dimensions in {} bytes", dimensions, bytes.size()),
                  fmt::format("at most {} dimensions, eight bytes each", most_dimensions));
  TensorLayout layout{static_cast<WireDtype>(dtype), {}, (first & gradient_bit) != 0, (first & device_bit) != 0};
  for (std::size_t dimension = 0; dimension < dimensions; ++dimension) {
    layout.sizes.push_back(read_at<std::int64_t>(bytes, 2 + 8 * dimension));
    if (layout.sizes.back() < 0) throw refused(fmt::format("a size of {}", layout.sizes.back()), "at least 0");
  }
  bytes = bytes.subspan(2 + 8 * dimensions);
  return layout;
}

// Of those on a device, or of the others. Without overflow: a product above `most` is `most` + 1.
std::uint64_t checked_bytes(const Layouts& layouts, bool on_device, std::uint64_t most) {
  std::uint64_t sum = 0;
  for (const TensorLayout& layout : layouts) {
    if (layout.on_device != on_device) continue;
    std::uint64_t bytes = element_bytes(layout.dtype);
    for (const std::int64_t size : layout.sizes) {
      const auto factor = static_cast<std::uint64_t>(size);
      if (factor != 0 && bytes > most / factor) return most + 1;
      bytes *= factor;
    }
    if (bytes > most - sum) return most + 1;
    sum += bytes;
  }
  return sum;
}

Layouts read_layouts(std::span<const std::byte> bytes, std::size_t tensors) {
  if (tensors > most_tensors)
    throw refused(fmt::format("{} tensors", tensors), fmt::format("at most {}", most_tensors));
  Layouts layouts;
  for (std::size_t tensor = 0; tensor < tensors; ++tensor) layouts.push_back(read_layout(bytes));
  if (!bytes.empty()) throw refused(fmt::format("{} bytes behind its layouts", bytes.size()), "none");
  return layouts;
}

void check_rank(std::int32_t rank, std::int32_t first, std::int32_t end, std::string_view whose) {
  if (rank < first || rank >= end)
    throw refused(fmt::format("the {} rank {}", whose, rank), fmt::format("{} to {}", first, end - 1));
}

}  // namespace

std::size_t element_bytes(WireDtype dtype) {
  using enum WireDtype;
  switch (dtype) {
    case Undefined:
      return 0;
    case UInt8:
    case Int8:
    case Bool:
      return 1;
    case Int16:
    case Float16:
    case BFloat16:
      return 2;
    case Int32:
    case Float32:
      return 4;
    case Int64:
    case Float64:
      return 8;
  }
  return 0;
}

std::uint64_t bytes_of(const Layouts& layouts) {
  return checked_bytes(layouts, /*on_device=*/false, std::numeric_limits<std::int64_t>::max());
}

bool LayoutMemory::same_as_last(const FrameAddress& address, const Layouts& layouts) {
  const auto [place, fresh] = layouts_.try_emplace(key_of(address), layouts);
  if (fresh) return false;
  if (place->second == layouts) return true;
  place->second = layouts;
  return false;
}

const Layouts* LayoutMemory::last(const FrameAddress& address) const {
  const auto found = layouts_.find(key_of(address));
  return found == layouts_.end() ? nullptr : &found->second;
}

std::size_t FrameWriter::begin(const Frame& frame, const Layouts& layouts, std::span<std::byte> into) {
  check_invariant(into.size() >= largest_frame_bytes, "a frame's buffer holds the largest frame");
  check_invariant(layouts.size() <= most_tensors, "a message has at most 64 tensors");
  std::memcpy(into.data(), magic.data(), magic.size());
  write_at(into, 4, format_version);
  write_at(into, 6, static_cast<std::uint8_t>(frame.kind));
  write_at(into, 7, static_cast<std::uint8_t>(frame.with_layouts ? 1 : 0));
  write_at(into, 8, run_identity_);
  write_at(into, 16, sequence_++);
  write_at(into, 24, frame.address.from);
  write_at(into, 28, frame.address.to);
  write_at(into, 32, frame.address.channel);
  write_at(into, 36, frame.address.microbatch);
  write_at(into, 40, frame.address.tag_kind);
  write_at(into, 41, static_cast<std::uint8_t>(layouts.size()));
  write_at(into, 42, static_cast<std::uint16_t>(frame.with_layouts ? layout_bytes(layouts) : 0));
  write_at(into, 44, std::uint32_t{0});
  write_at(into, 48, frame.message_bytes);
  std::size_t offset = frame_header_bytes;
  if (!frame.with_layouts) return offset;
  for (const TensorLayout& layout : layouts) {
    check_invariant(layout.sizes.size() <= most_dimensions, "a tensor has at most 64 dimensions");
    write_at(
        into, offset,
        static_cast<std::uint8_t>(static_cast<unsigned>(layout.dtype) | (layout.takes_gradient ? gradient_bit : 0U) |
                                  (layout.on_device ? device_bit : 0U)));
    write_at(into, offset + 1, static_cast<std::uint8_t>(layout.sizes.size()));
    offset += 2;
    for (const std::int64_t size : layout.sizes) {
      write_at(into, offset, size);
      offset += 8;
    }
  }
  return offset;
}

void FrameWriter::finish(std::span<std::byte> frame, std::size_t begin, std::size_t end) {
  write_at(frame, 44, static_cast<std::uint32_t>(end - begin));
}

// What holds for every frame, and its kind.
FrameKind FrameReader::check_header(std::span<const std::byte> frame) {
  if (frame.size() < frame_header_bytes)
    throw refused(fmt::format("{} bytes", frame.size()),
                  fmt::format("at least the {} of a header", frame_header_bytes));
  if (std::memcmp(frame.data(), magic.data(), magic.size()) != 0) throw refused("a foreign beginning", "penstock's");
  if (const auto version = read_at<std::uint16_t>(frame, 4); version != format_version)
    throw refused(fmt::format("version {}", version), fmt::format("version {}", format_version));
  if (const auto identity = read_at<std::uint64_t>(frame, 8); identity != terms_.run_identity)
    throw refused(fmt::format("the run identity {:016x}", identity), fmt::format("{:016x}", terms_.run_identity));
  if (const auto sequence = read_at<std::uint64_t>(frame, 16); sequence != sequence_)
    throw refused(fmt::format("the number {}", sequence), fmt::format("number {}", sequence_));
  ++sequence_;
  const auto kind = read_at<std::uint8_t>(frame, 6);
  if (kind > static_cast<std::uint8_t>(FrameKind::Goodbye)) throw refused(fmt::format("the kind {}", kind), "0 to 5");
  if (read_at<std::uint8_t>(frame, 7) > 1) throw refused("unknown flags", "0 or 1");
  return static_cast<FrameKind>(kind);
}

void FrameReader::open_message(const FrameAddress& address, std::uint64_t bytes, std::span<const std::byte> layouts,
                               std::optional<std::size_t> tensors) {
  if (open_) throw refused("a beginning within another", "the rest of the one that is under way");
  check_rank(address.from, terms_.first_sender, terms_.end_sender, "sending");
  check_rank(address.to, terms_.first_receiver, terms_.end_receiver, "receiving");
  if (address.tag_kind >= terms_.tag_kinds)
    throw refused(fmt::format("the tag's kind {}", address.tag_kind), fmt::format("below {}", terms_.tag_kinds));
  Open open{address, {}, bytes, 0};
  const Layouts* last = memory_.last(address);
  if (tensors) {
    open.layouts = read_layouts(layouts, *tensors);
  } else if (last != nullptr && layouts.empty()) {
    open.layouts = *last;
  } else {
    throw refused("no layouts", "those of the first message of its kind");
  }
  // What is beyond the largest counts as one more than it, which a foreign header may say as well.
  const std::uint64_t most = terms_.largest_message_bytes;
  if (bytes > most || checked_bytes(open.layouts, /*on_device=*/false, most) != bytes)
    throw refused(fmt::format("{} bytes", bytes), fmt::format("those of its tensors, at most {}", most));
  if (std::ranges::any_of(open.layouts, &TensorLayout::on_device) &&
      (!terms_.on_device || checked_bytes(open.layouts, /*on_device=*/true, most) > most))
    throw refused("tensors on a device", terms_.on_device ? fmt::format("at most {} bytes of them", most)
                                                          : "all bytes in frames between these two processes");
  if (last == nullptr && memory_.size() >= most_remembered_layouts)
    throw refused("a new channel", "one of those that are known");
  if (tensors) static_cast<void>(memory_.same_as_last(address, open.layouts));
  open_ = std::move(open);
}

Incoming FrameReader::read(std::span<const std::byte> frame) {
  Incoming incoming;
  incoming.kind = check_header(frame);
  const std::size_t layouts_size = read_at<std::uint16_t>(frame, 42);
  const std::size_t payload = read_at<std::uint32_t>(frame, 44);
  if (layouts_size + payload > frame.size() - frame_header_bytes)
    throw refused(fmt::format("{} + {} bytes behind its header", layouts_size, payload),
                  fmt::format("at most {}", frame.size() - frame_header_bytes));
  incoming.bytes = frame.subspan(frame_header_bytes + layouts_size, payload);
  if (incoming.kind != FrameKind::Message && incoming.kind != FrameKind::Continuation) return incoming;
  incoming.address = {read_at<std::int32_t>(frame, 24), read_at<std::int32_t>(frame, 28),
                      read_at<std::int32_t>(frame, 32), read_at<std::int32_t>(frame, 36),
                      read_at<std::uint8_t>(frame, 40)};
  const auto message_bytes = read_at<std::uint64_t>(frame, 48);
  incoming.first = incoming.kind == FrameKind::Message;
  if (incoming.first) {
    std::optional<std::size_t> tensors;
    if (read_at<std::uint8_t>(frame, 7) == 1) tensors = read_at<std::uint8_t>(frame, 41);
    open_message(incoming.address, message_bytes, frame.subspan(frame_header_bytes, layouts_size), tensors);
  } else if (!open_ || incoming.address != open_->address || message_bytes != open_->bytes || layouts_size != 0) {
    throw refused("a continuation of nothing", "the rest of the one that is under way");
  }
  if (payload > open_->bytes - open_->read || (payload == 0 && open_->read < open_->bytes))
    throw refused(fmt::format("{} more bytes", payload), fmt::format("1 to {}", open_->bytes - open_->read));
  incoming.offset = open_->read;
  open_->read += payload;
  incoming.last = open_->read == open_->bytes;
  layouts_ = incoming.last ? std::move(open_->layouts) : Layouts{};
  incoming.layouts = incoming.last ? &layouts_ : &open_->layouts;
  if (incoming.last) open_.reset();
  return incoming;
}

}  // namespace penstock
