// Feeds a link's reader with frames as another process might send them. Each piece of the input is a frame behind two
// bytes of length; the highest bit says that what every frame must begin with is put in, so that the rest is reached.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/wire/frame.h"

namespace {

using namespace penstock;

constexpr std::uint64_t identity = 0x0123456789abcdefULL;

void put_in_what_must_be(std::vector<std::byte>& frame, std::uint64_t sequence) {
  constexpr std::uint16_t version = 2;
  if (frame.size() < frame_header_bytes) return;
  std::memcpy(frame.data(), "PSTK", 4);
  std::memcpy(frame.data() + 4, &version, sizeof version);
  std::memcpy(frame.data() + 8, &identity, sizeof identity);
  std::memcpy(frame.data() + 16, &sequence, sizeof sequence);
}

std::uint64_t room_of(const TensorLayout& layout) {
  std::uint64_t last = 0;
  std::uint64_t stride = 1;
  for (std::size_t dimension = layout.sizes.size(); dimension-- > 0;) {
    const auto size = static_cast<std::uint64_t>(layout.sizes[dimension]);
    if (size == 0) return 0;
    if (!layout.strides.empty()) stride = static_cast<std::uint64_t>(layout.strides[dimension]);
    last += (size - 1) * stride;
    stride *= size;
  }
  return (last + 1) * element_bytes(layout.dtype);
}

// What was believed must be what a receiver may write: bytes within the frame, and within the message.
void check(const Incoming& incoming, const std::vector<std::byte>& frame, std::uint64_t largest) {
  if (!incoming.bytes.empty() && (incoming.bytes.data() < frame.data() ||
                                  incoming.bytes.data() + incoming.bytes.size() > frame.data() + frame.size()))
    std::abort();
  if (incoming.layouts == nullptr) return;
  const std::uint64_t message = bytes_of(*incoming.layouts);
  // Room is made for every element that sizes and strides reach, counted here in a way of its own.
  std::array<std::uint64_t, 2> room{};
  for (const TensorLayout& layout : *incoming.layouts) room.at(layout.on_device ? 1 : 0) += room_of(layout);
  if (room[0] > largest || room[1] > largest || message > room[0]) std::abort();
  if (incoming.offset + incoming.bytes.size() > message) std::abort();
  if (incoming.last != (incoming.offset + incoming.bytes.size() == message)) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  LinkTerms terms{identity, 0, 2, 2, 4};
  terms.largest_message_bytes = 1U << 20U;
  terms.on_device = true;
  FrameReader reader(terms);
  std::uint64_t sequence = 0;
  try {
    while (size >= 2) {
      const unsigned head = data[0] | (static_cast<unsigned>(data[1]) << 8U);
      const std::size_t length = std::min<std::size_t>(head & 0x7fffU, size - 2);
      const auto* begin = reinterpret_cast<const std::byte*>(data + 2);
      std::vector<std::byte> frame(begin, begin + length);
      if ((head & 0x8000U) != 0) put_in_what_must_be(frame, sequence);
      check(reader.read(frame), frame, terms.largest_message_bytes);
      ++sequence;
      data += 2 + length;
      size -= 2 + length;
    }
  } catch (const Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
