#include "penstock/wire/frame.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t identity = 77;
const LinkTerms terms{identity, 0, 2, 2, 4};
const FrameAddress address{1, 2, 5, 6, 0};
const Layouts layouts{{WireDtype::Float32, {2, 3}, true}, {}, {WireDtype::Int64, {}}};

std::vector<std::byte> written(FrameWriter& writer, Frame frame, const Layouts& of, std::size_t payload,
                               std::byte value = std::byte{7}) {
  std::vector<std::byte> buffer(largest_frame_bytes);
  const std::size_t begin = writer.begin(frame, of, buffer);
  std::fill_n(buffer.begin() + static_cast<std::ptrdiff_t>(begin), payload, value);
  FrameWriter::finish(buffer, begin, begin + payload);
  return buffer;
}

Frame message(bool with_layouts) { return {FrameKind::Message, address, with_layouts, bytes_of(layouts)}; }

std::string refusal_by(FrameReader& reader, const std::vector<std::byte>& frame) {
  try {
    static_cast<void>(reader.read(frame));
  } catch (const Error& error) {
    return error.what();
  }
  return "taken";
}

std::string refusal(const std::vector<std::byte>& frame) {
  FrameReader reader(terms);
  return refusal_by(reader, frame);
}

// All frames of a message whose bytes are all `value`.
std::vector<std::vector<std::byte>> frames_of(FrameWriter& writer, const Layouts& of, std::byte value = std::byte{7}) {
  Frame frame{FrameKind::Message, address, true, bytes_of(of)};
  std::vector<std::vector<std::byte>> frames;
  for (std::uint64_t left = frame.message_bytes; frames.empty() || frame.with_layouts || left > 0;) {
    auto& buffer = frames.emplace_back(largest_frame_bytes);
    const std::size_t begin = writer.begin(frame, of, buffer);
    frame.with_layouts = FrameWriter::has_more_layouts(frame, of);
    const std::size_t part =
        frame.with_layouts ? 0 : static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size() - begin));
    std::fill_n(buffer.begin() + static_cast<std::ptrdiff_t>(begin), part, value);
    FrameWriter::finish(buffer, begin, begin + part);
    left -= part;
    frame.kind = FrameKind::Continuation;
  }
  return frames;
}

TEST(Frame, AMessageComesBackWithItsLayoutsWhichThenNeedNotBeSaid) {
  FrameWriter writer(identity);
  FrameReader reader(terms);
  for (const bool with_layouts : {true, false}) {
    const auto frame = written(writer, message(with_layouts), layouts, bytes_of(layouts));
    const Incoming incoming = reader.read(frame);
    EXPECT_EQ(incoming.kind, FrameKind::Message);
    EXPECT_EQ(incoming.address, address);
    ASSERT_NE(incoming.layouts, nullptr);
    EXPECT_EQ(*incoming.layouts, layouts);
    EXPECT_TRUE(incoming.first && incoming.last);
    EXPECT_EQ(incoming.bytes.size(), 32U);
    EXPECT_EQ(incoming.bytes.front(), std::byte{7});
  }
}

TEST(Frame, ALargeMessageComesInPartsWithHeartbeatsBetween) {
  FrameWriter writer(identity);
  FrameReader reader(terms);
  const Incoming first = reader.read(written(writer, message(true), layouts, 20));
  EXPECT_TRUE(first.first && !first.last);
  EXPECT_EQ(reader.read(written(writer, {}, {}, 0)).kind, FrameKind::Heartbeat);
  Frame rest = message(false);
  rest.kind = FrameKind::Continuation;
  const Incoming last = reader.read(written(writer, rest, {}, 12));
  EXPECT_TRUE(!last.first && last.last);
  EXPECT_EQ(last.offset, 20U);
  EXPECT_EQ(*last.layouts, layouts);
}

TEST(Frame, LayoutsAreRememberedForEachKindAndChannel) {
  LayoutMemory memory;
  EXPECT_FALSE(memory.same_as_last(address, layouts));
  EXPECT_TRUE(memory.same_as_last(address, layouts));
  FrameAddress other = address;
  other.microbatch = 9;
  EXPECT_TRUE(memory.same_as_last(other, layouts));
  other.channel = 9;
  EXPECT_FALSE(memory.same_as_last(other, layouts));
  EXPECT_FALSE(memory.same_as_last(address, {}));
}

// Each flaw alone, in an otherwise good frame.
TEST(Frame, WhatDoesNotBelongIsRefusedByName) {
  const auto changed = [](std::size_t offset, auto value) {
    FrameWriter writer(identity);
    auto frame = written(writer, message(true), layouts, bytes_of(layouts));
    std::memcpy(frame.data() + offset, &value, sizeof value);
    return frame;
  };
  EXPECT_THAT(refusal(changed(0, 'X')), HasSubstr("a foreign beginning"));
  EXPECT_THAT(refusal(changed(4, std::uint16_t{9})), HasSubstr("version 9; expected version 2"));
  EXPECT_THAT(refusal(changed(6, std::uint8_t{9})), HasSubstr("the kind 9"));
  EXPECT_THAT(refusal(changed(8, std::uint64_t{1})), HasSubstr("the run identity 0000000000000001"));
  EXPECT_THAT(refusal(changed(16, std::uint64_t{4})), HasSubstr("the number 4"));
  EXPECT_THAT(refusal(changed(24, std::int32_t{2})), HasSubstr("the sending rank 2; expected 0 to 1"));
  EXPECT_THAT(refusal(changed(28, std::int32_t{-1})), HasSubstr("the receiving rank -1; expected 2 to 3"));
  EXPECT_THAT(refusal(changed(44, std::uint32_t{70'000})), HasSubstr("70000 tensors; expected at most 65535"));
  EXPECT_THAT(refusal(changed(44, std::uint32_t{2})), HasSubstr("bytes behind its layouts"));
  EXPECT_THAT(refusal(changed(48, std::uint32_t{0xffffffff})), HasSubstr("bytes behind its header"));
  EXPECT_THAT(refusal(changed(52, std::uint32_t{0xffffffff})), HasSubstr("bytes behind its header"));
  EXPECT_THAT(refusal(changed(56, std::uint64_t{1} << 40U)), HasSubstr("1099511627776 bytes; expected those of its"));
  EXPECT_THAT(refusal(changed(64, std::uint8_t{40})), HasSubstr("the dtype 40"));
  EXPECT_THAT(refusal(changed(64, std::uint8_t{0})), HasSubstr("an undefined tensor that has a layout"));
  EXPECT_THAT(refusal(changed(64, std::uint8_t{0x85})), HasSubstr("a gradient of the dtype 5"));
  EXPECT_THAT(refusal(changed(65, std::uint8_t{65})), HasSubstr("65 dimensions"));
  EXPECT_THAT(refusal(changed(65, std::uint8_t{0x82})), HasSubstr("a tensor of 2 dimensions in 20 bytes"));
  EXPECT_THAT(refusal(changed(66, std::int64_t{-2})), HasSubstr("a size of -2"));
  EXPECT_THAT(refusal(changed(66, std::int64_t{1} << 62U)), HasSubstr("32 bytes; expected those of its tensors"));
  EXPECT_THAT(refusal(std::vector<std::byte>(10)), HasSubstr("10 bytes"));
}

// Found by the fuzzer: what is too large to be counted was counted as one byte more than the largest, and so believed
// where the header said just that.
TEST(Frame, TensorsBeyondTheLargestMessageAreRefusedWhateverTheHeaderSays) {
  FrameWriter writer(identity);
  Frame huge = message(true);
  huge.message_bytes = terms.largest_message_bytes + 1;
  const Layouts beyond{{WireDtype::Float32, {std::int64_t{1} << 62U, 3}}};
  EXPECT_THAT(refusal(written(writer, huge, beyond, 12)), HasSubstr("expected those of its tensors, at most"));
}

TEST(Frame, OfTensorsThatGoFromDeviceToDeviceOnlyTheLayoutsCome) {
  const Layouts mixed{{WireDtype::Float32, {2, 3}, true, true}, {WireDtype::Int64, {}}};
  EXPECT_EQ(bytes_of(mixed), 8U);
  FrameWriter writer(identity);
  const auto frame = written(writer, {FrameKind::Message, address, true, bytes_of(mixed)}, mixed, 8);
  LinkTerms direct = terms;
  direct.on_device = true;
  const Incoming incoming = FrameReader(direct).read(frame);
  EXPECT_EQ(*FrameReader(direct).read(frame).layouts, mixed);
  EXPECT_TRUE(incoming.first && incoming.last);
  EXPECT_EQ(incoming.bytes.size(), 8U);
  EXPECT_THAT(refusal(frame), HasSubstr("tensors on a device"));
  // Room is made for these too.
  direct.largest_message_bytes = 23;
  EXPECT_THROW(static_cast<void>(FrameReader(direct).read(frame)), Error);
  direct.largest_message_bytes = 24;
  EXPECT_NO_THROW(static_cast<void>(FrameReader(direct).read(frame)));
}

// What fits a frame is what it takes; nothing of the message comes before the last layout.
TEST(Frame, LayoutsThatDoNotFitOneFrameGoOnInTheNext) {
  for (const std::size_t tensors : {std::size_t{70}, std::size_t{1000}, std::size_t{9999}, most_tensors}) {
    const Layouts many(tensors, {WireDtype::Float32, {1, 2, 1}, true, false, {5, 1, 7}});
    FrameWriter writer(identity);
    FrameReader reader(terms);
    std::uint64_t bytes = 0;
    const auto frames = frames_of(writer, many);
    const auto continued = frames_of(writer, {{WireDtype::Int8, {3}}});
    EXPECT_EQ(frames.size() > 1, tensors > 1000);
    for (const auto& frame : frames) {
      const Incoming incoming = reader.read(frame);
      bytes += incoming.bytes.size();
      EXPECT_EQ(incoming.layouts != nullptr, bytes > 0);
      EXPECT_EQ(incoming.last, bytes == 8 * tensors);
      if (incoming.last) {
        EXPECT_EQ(*incoming.layouts, many);
      }
    }
    EXPECT_EQ(bytes, 8 * tensors);
    EXPECT_TRUE(reader.read(continued.front()).last);
  }
}

TEST(Frame, WhatInterruptsLayoutsIsRefused) {
  const Layouts many(20'000, {WireDtype::Float32, {1, 2, 1}});
  const auto second_changed = [&](std::size_t offset, auto value) {
    FrameWriter writer(identity);
    auto frames = frames_of(writer, many);
    FrameReader reader(terms);
    static_cast<void>(reader.read(frames.at(0)));
    std::memcpy(frames.at(1).data() + offset, &value, sizeof value);
    return refusal_by(reader, frames.at(1));
  };
  EXPECT_EQ(second_changed(7, std::uint8_t{1}), "taken");
  EXPECT_THAT(second_changed(7, std::uint8_t{0}), HasSubstr("layouts among its bytes"));
  EXPECT_THAT(second_changed(48, std::uint32_t{0}), HasSubstr("a frame without layouts"));
  EXPECT_THAT(second_changed(52, std::uint32_t{1}), HasSubstr("expected all of its layouts before them"));
  EXPECT_THAT(second_changed(56, std::uint64_t{1}), HasSubstr("a continuation of nothing"));
  EXPECT_THAT(second_changed(6, std::uint8_t{0}), HasSubstr("a beginning within another"));
}

TEST(Frame, OfWhatStridesLeaveOutOrRepeatNothingComes) {
  const auto bytes = [](std::vector<std::int64_t> sizes, std::vector<std::int64_t> strides) {
    return bytes_of({{WireDtype::Float32, std::move(sizes), false, false, std::move(strides)}});
  };
  EXPECT_EQ(bytes({3, 4}, {1, 3}), 48U);
  EXPECT_EQ(bytes({3, 4}, {100, 1}), 48U);
  EXPECT_EQ(bytes({3, 4}, {0, 1}), 16U);
  EXPECT_EQ(bytes({3, 4}, {2, 1}), 32U);
  EXPECT_EQ(bytes({3, 0}, {2, 9}), 0U);
}

// Room is made for the span, which only the strides tell.
TEST(Frame, StridesThatReachBeyondTheLargestMessageAreRefused) {
  const auto refusal_of = [](std::vector<std::int64_t> sizes, std::vector<std::int64_t> strides, std::uint64_t bytes) {
    FrameWriter writer(identity);
    Frame frame = message(true);
    frame.message_bytes = bytes;
    return refusal(written(writer, frame, {{WireDtype::Float32, std::move(sizes), false, false, std::move(strides)}},
                           static_cast<std::size_t>(bytes)));
  };
  constexpr std::int64_t most = std::int64_t{1} << 32U;  // elements of four bytes
  constexpr std::int64_t huge = std::int64_t{1} << 62U;
  EXPECT_EQ(refusal_of({2}, {most - 1}, 8), "taken");
  EXPECT_THAT(refusal_of({2}, {most}, 8), HasSubstr("expected those of its tensors, at most"));
  EXPECT_THAT(refusal_of({2, 2}, {huge, huge}, 8), HasSubstr("expected those of its tensors, at most"));
  EXPECT_THAT(refusal_of({huge, huge}, {0, 0}, 4), HasSubstr("expected those of its tensors, at most"));
  EXPECT_THAT(refusal_of({2, 2}, {-1, 1}, 8), HasSubstr("a stride of -1"));
  EXPECT_EQ(refusal_of({5, 0}, {huge, huge}, 0), "taken");
}

TEST(Frame, NothingIsContinuedAndNoLayoutsAreKnownAtFirst) {
  FrameWriter writer(identity);
  Frame rest = message(false);
  rest.kind = FrameKind::Continuation;
  EXPECT_THAT(refusal(written(writer, rest, {}, 12)), HasSubstr("a continuation of nothing"));
  FrameWriter other(identity);
  EXPECT_THAT(refusal(written(other, message(false), layouts, 32)), HasSubstr("no layouts"));
  // As many as before, or they are said.
  FrameReader reader(terms);
  FrameWriter third(identity);
  static_cast<void>(reader.read(written(third, message(true), layouts, 32)));
  EXPECT_THAT(refusal_by(reader, written(third, message(false), {}, 32)), HasSubstr("no layouts"));
}

}  // namespace
}  // namespace penstock
