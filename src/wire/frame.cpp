#include "penstock/wire/frame.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::array<char, 4> magic{'P', 'S', 'T', 'K'};
constexpr std::uint16_t format_version = 2;
// What a foreign process can make this one remember.
constexpr std::size_t most_remembered_channels = std::size_t{1} << 16U;
constexpr std::size_t most_remembered_bytes = std::size_t{1} << 28U;

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

constexpr unsigned gradient_bit = 0x80;
constexpr unsigned device_bit = 0x40;
constexpr unsigned strides_bit = 0x80;  // of the second byte

std::size_t layout_bytes(const TensorLayout& layout) { return 2 + 8 * (layout.sizes.size() + layout.strides.size()); }

std::size_t remembered_bytes(const Layouts& layouts) {
  std::size_t bytes = 0;
  for (const TensorLayout& layout : layouts) bytes += sizeof layout + layout_bytes(layout);
  return bytes;
}

std::vector<std::int64_t> read_numbers(std::span<const std::byte>& bytes, std::size_t count, std::string_view what) {
  std::vector<std::int64_t> numbers;
  numbers.reserve(count);
  for (std::size_t index = 0; index < count; ++index) {
    numbers.push_back(read_at<std::int64_t>(bytes, 8 * index));
    if (numbers.back() < 0) throw refused(fmt::format("a {} of {}", what, numbers.back()), "at least 0");
  }
  bytes = bytes.subspan(8 * count);
  return numbers;
}

TensorLayout read_layout(std::span<const std::byte>& bytes) {
  if (bytes.size() < 2) throw refused("a layout that is cut short", "a dtype and dimensions for every tensor");
  const auto first = std::to_integer<unsigned>(bytes[0]);
  const auto second = std::to_integer<unsigned>(bytes[1]);
  const auto dtype = first & ~(gradient_bit | device_bit);
  const std::size_t dimensions = second & ~strides_bit;
  const bool with_strides = (second & strides_bit) != 0;
  if (dtype > static_cast<unsigned>(last_dtype))
    throw refused(fmt::format("the dtype {}", dtype), fmt::format("at most {}", static_cast<int>(last_dtype)));
  bytes = bytes.subspan(2);
  if (dimensions > most_dimensions || bytes.size() < (with_strides ? 16 : 8) * dimensions)
    throw refused(fmt::format("a tensor of {} dimensions in {} bytes", dimensions, bytes.size()),
                  fmt::format("at most {} dimensions, eight bytes for each size and stride", most_dimensions));
  TensorLayout layout{static_cast<WireDtype>(dtype), {}, (first & gradient_bit) != 0, (first & device_bit) != 0, {}};
  if (layout.dtype == WireDtype::Undefined && (first != 0 || second != 0))
    throw refused("an undefined tensor that has a layout", "none of it");
  if (layout.takes_gradient && !is_differentiable(layout.dtype))
    throw refused(fmt::format("a gradient of the dtype {}", dtype), "those of floating and complex ones");
  layout.sizes = read_numbers(bytes, dimensions, "size");
  if (with_strides) layout.strides = read_numbers(bytes, dimensions, "stride");
  return layout;
}

// The bytes of one tensor; none if it has more than `most`.
std::optional<LayoutBytes> checked_bytes(const TensorLayout& layout, std::uint64_t most) {
  const std::uint64_t element = element_bytes(layout.dtype);
  if (element == 0) return LayoutBytes{};
  // Its elements must be countable also where they share memory.
  constexpr auto most_elements = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t elements = 1;
  for (const std::int64_t size : layout.sizes) {
    const auto factor = static_cast<std::uint64_t>(size);
    if (factor != 0 && elements > most_elements / element / factor) return std::nullopt;
    elements *= factor;
  }
  if (layout.strides.empty()) {
    if (elements > most / element) return std::nullopt;
    return LayoutBytes{elements * element, elements * element};
  }
  const auto extent = extent_of(layout.sizes, layout.strides, most / element);
  if (!extent) return std::nullopt;
  return LayoutBytes{extent->distinct * element, extent->span * element};
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
    case Float8E5M2:
    case Float8E4M3FN:
    case Float8E5M2FNUZ:
    case Float8E4M3FNUZ:
    case Float8E8M0FNU:
    case Float4E2M1FNX2:
      return 1;
    case Int16:
    case UInt16:
    case Float16:
    case BFloat16:
      return 2;
    case Int32:
    case UInt32:
    case Float32:
    case Complex32:
      return 4;
    case Int64:
    case UInt64:
    case Float64:
    case Complex64:
      return 8;
    case Complex128:
      return 16;
  }
  return 0;
}

bool is_differentiable(WireDtype dtype) {
  using enum WireDtype;
  switch (dtype) {
    case Undefined:
    case UInt8:
    case Int8:
    case Bool:
    case Int16:
    case UInt16:
    case Int32:
    case UInt32:
    case Int64:
    case UInt64:
      return false;
    default:
      return true;
  }
}

std::optional<LayoutBytes> bytes_of(const Layouts& layouts, bool on_device, std::uint64_t most) {
  LayoutBytes sum;
  for (const TensorLayout& layout : layouts) {
    if (layout.on_device != on_device) continue;
    const auto bytes = checked_bytes(layout, most - sum.in_memory);
    if (!bytes) return std::nullopt;
    sum.in_transit += bytes->in_transit;
    sum.in_memory += bytes->in_memory;
  }
  return sum;
}

std::uint64_t bytes_of(const Layouts& layouts) {
  const auto bytes = bytes_of(layouts, /*on_device=*/false, std::numeric_limits<std::int64_t>::max());
  check_invariant(bytes.has_value(), "a message's bytes fit 63 bits");
  return bytes->in_transit;
}

bool LayoutMemory::same_as_last(const FrameAddress& address, const Layouts& layouts) {
  const auto [place, fresh] = layouts_.try_emplace(key_of(address));
  if (!fresh && place->second == layouts) return true;
  bytes_ -= remembered_bytes(place->second);
  place->second = layouts;
  bytes_ += remembered_bytes(layouts);
  return false;
}

const Layouts* LayoutMemory::last(const FrameAddress& address) const {
  const auto found = layouts_.find(key_of(address));
  return found == layouts_.end() ? nullptr : &found->second;
}

namespace {

// Where the next one goes.
std::size_t write_layout(std::span<std::byte> into, std::size_t offset, const TensorLayout& layout) {
  const auto first = static_cast<unsigned>(layout.dtype) | (layout.takes_gradient ? gradient_bit : 0U) |
                     (layout.on_device ? device_bit : 0U);
  const auto second = static_cast<unsigned>(layout.sizes.size()) | (layout.strides.empty() ? 0U : strides_bit);
  write_at(into, offset, static_cast<std::uint8_t>(first));
  write_at(into, offset + 1, static_cast<std::uint8_t>(second));
  offset += 2;
  for (const auto* numbers : {&layout.sizes, &layout.strides}) {
    for (const std::int64_t number : *numbers) {
      write_at(into, offset, number);
      offset += 8;
    }
  }
  return offset;
}

}  // namespace

std::size_t FrameWriter::begin(Frame& frame, const Layouts& layouts, std::span<std::byte> into) {
  check_invariant(into.size() >= largest_frame_bytes, "a frame's buffer holds the largest frame");
  check_invariant(layouts.size() <= most_tensors, "a message has at most 65,535 tensors");
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
  write_at(into, 40, std::uint32_t{frame.address.tag_kind});
  write_at(into, 44, static_cast<std::uint32_t>(layouts.size()));
  write_at(into, 52, std::uint32_t{0});
  write_at(into, 56, frame.message_bytes);
  std::size_t offset = frame_header_bytes;
  while (has_more_layouts(frame, layouts)) {
    const TensorLayout& layout = layouts[frame.layouts_written];
    check_invariant(layout.sizes.size() <= most_dimensions, "a tensor has at most 64 dimensions");
    if (layout_bytes(layout) > largest_frame_bytes - offset) break;
    offset = write_layout(into, offset, layout);
    ++frame.layouts_written;
  }
  write_at(into, 48, static_cast<std::uint32_t>(offset - frame_header_bytes));
  return offset;
}

void FrameWriter::finish(std::span<std::byte> frame, std::size_t begin, std::size_t end) {
  write_at(frame, 52, static_cast<std::uint32_t>(end - begin));
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

void FrameReader::open_message(const FrameAddress& address, std::span<const std::byte> frame) {
  if (open_) throw refused("a beginning within another", "the rest of the one that is under way");
  check_rank(address.from, terms_.first_sender, terms_.end_sender, "sending");
  check_rank(address.to, terms_.first_receiver, terms_.end_receiver, "receiving");
  const std::size_t tensors = read_at<std::uint32_t>(frame, 44);
  if (tensors > most_tensors)
    throw refused(fmt::format("{} tensors", tensors), fmt::format("at most {}", most_tensors));
  open_ = Open{address, tensors, {}, false, read_at<std::uint64_t>(frame, 56), 0};
}

// Those of one frame. Room is made for what is there, and not for what is said to follow.
void FrameReader::read_layouts(std::span<const std::byte> layouts) {
  if (layouts.empty() && open_->tensors > 0) throw refused("a frame without layouts", "the rest of them");
  while (!layouts.empty()) {
    if (open_->layouts.size() == open_->tensors)
      throw refused(fmt::format("{} bytes behind its layouts", layouts.size()), "none");
    open_->layouts.push_back(read_layout(layouts));
  }
}

void FrameReader::begin_message(bool with_layouts) {
  // What is beyond the largest counts as none, whatever the header says.
  const std::uint64_t most = terms_.largest_message_bytes;
  const auto in_frames = bytes_of(open_->layouts, /*on_device=*/false, most);
  if (!in_frames || in_frames->in_transit != open_->bytes)
    throw refused(fmt::format("{} bytes", open_->bytes), fmt::format("those of its tensors, at most {}", most));
  if (std::ranges::any_of(open_->layouts, &TensorLayout::on_device) &&
      (!terms_.on_device || !bytes_of(open_->layouts, /*on_device=*/true, most)))
    throw refused("tensors on a device", terms_.on_device ? fmt::format("at most {} bytes of them", most)
                                                          : "all bytes in frames between these two processes");
  if (with_layouts) {
    static_cast<void>(memory_.same_as_last(open_->address, open_->layouts));
    if (memory_.channels() > most_remembered_channels || memory_.bytes() > most_remembered_bytes)
      throw refused("a new channel", "one of those that are known");
  }
  open_->begun = true;
}

Incoming FrameReader::read(std::span<const std::byte> frame) {
  Incoming incoming;
  incoming.kind = check_header(frame);
  const std::size_t layouts_size = read_at<std::uint32_t>(frame, 48);
  const std::size_t payload = read_at<std::uint32_t>(frame, 52);
  if (layouts_size + payload > frame.size() - frame_header_bytes)
    throw refused(fmt::format("{} + {} bytes behind its header", layouts_size, payload),
                  fmt::format("at most {}", frame.size() - frame_header_bytes));
  incoming.bytes = frame.subspan(frame_header_bytes + layouts_size, payload);
  if (incoming.kind != FrameKind::Message && incoming.kind != FrameKind::Continuation) return incoming;
  incoming.address = {read_at<std::int32_t>(frame, 24), read_at<std::int32_t>(frame, 28),
                      read_at<std::int32_t>(frame, 32), read_at<std::int32_t>(frame, 36),
                      read_at<std::uint8_t>(frame, 40)};
  if (incoming.kind == FrameKind::Message)
    open_message(incoming.address, frame);
  else if (!open_ || incoming.address != open_->address || read_at<std::uint64_t>(frame, 56) != open_->bytes)
    throw refused("a continuation of nothing", "the rest of the one that is under way");
  const bool with_layouts = read_at<std::uint8_t>(frame, 7) == 1;
  if (with_layouts && !open_->begun) {
    read_layouts(frame.subspan(frame_header_bytes, layouts_size));
  } else if (with_layouts || layouts_size != 0) {
    throw refused("layouts among its bytes", "bytes alone, once all layouts have come");
  } else if (!open_->begun) {
    const Layouts* last = memory_.last(open_->address);
    if (incoming.kind != FrameKind::Message || last == nullptr || last->size() != open_->tensors)
      throw refused("no layouts", "those of the first message of its kind");
    open_->layouts = *last;
  }
  incoming.first = !open_->begun && open_->layouts.size() == open_->tensors;
  if (incoming.first) begin_message(with_layouts);
  if (!open_->begun && payload != 0) throw refused(fmt::format("{} bytes", payload), "all of its layouts before them");
  if (!open_->begun) return incoming;
  // Layouts may have left no room.
  return take_bytes(incoming, /*may_have_none=*/incoming.first && with_layouts);
}

Incoming FrameReader::take_bytes(Incoming incoming, bool may_have_none) {
  const std::size_t payload = incoming.bytes.size();
  if (payload > open_->bytes - open_->read || (payload == 0 && open_->read < open_->bytes && !may_have_none))
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
