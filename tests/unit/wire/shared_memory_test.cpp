#include "penstock/wire/shared_memory.h"

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "penstock/base/error.h"

namespace penstock {
namespace {

// Both ends of shared memory, here in one process.
class SharedRings : public testing::Test {
 protected:
  void SetUp() override {
    made_ = SharedMemory::make();
    ASSERT_TRUE(made_);
    opened_ = SharedMemory::open(made_->name());
    ASSERT_TRUE(opened_);
  }
  static void write(SharedRing& ring, std::byte content, std::size_t bytes) {
    const std::span<std::byte> room = ring.room();
    ASSERT_GE(room.size(), bytes);
    std::memset(room.data(), std::to_integer<int>(content), bytes);
    ring.publish(bytes);
  }

  std::unique_ptr<SharedMemory> made_;
  std::unique_ptr<SharedMemory> opened_;
  std::vector<std::byte> frame_ = std::vector<std::byte>(largest_frame_bytes);
};

TEST_F(SharedRings, CarryFramesInBothDirections) {
  SharedRing out(made_->outgoing());
  SharedRing in(opened_->incoming());
  SharedRing back_out(opened_->outgoing());
  SharedRing back_in(made_->incoming());
  EXPECT_EQ(in.take(frame_), 0U);
  for (std::size_t turn = 1; turn <= std::size_t{3} * SharedRing::slots; ++turn) {
    write(out, std::byte(turn), turn);
    write(back_out, std::byte(2 * turn), 2 * turn);
    EXPECT_EQ(in.take(frame_), turn);
    EXPECT_EQ(frame_.at(turn - 1), std::byte(turn));
    EXPECT_EQ(back_in.take(frame_), 2 * turn);
    EXPECT_EQ(frame_.at(0), std::byte(2 * turn));
  }
  EXPECT_EQ(in.take(frame_), 0U);
}

TEST_F(SharedRings, HaveNoRoomWhileFullAndSomeForEachFrameThatIsTaken) {
  SharedRing out(made_->outgoing());
  SharedRing in(opened_->incoming());
  for (std::uint32_t slot = 0; slot < SharedRing::slots; ++slot) write(out, std::byte(slot), 8);
  EXPECT_TRUE(out.room().empty());
  EXPECT_EQ(in.take(frame_), 8U);
  EXPECT_EQ(frame_.at(0), std::byte(0));
  EXPECT_EQ(out.room().size(), largest_frame_bytes);
}

TEST_F(SharedRings, APublishedFrameEndsAWait) {
  SharedRing out(made_->outgoing());
  SharedRing in(opened_->incoming());
  std::thread writer([&] {
    while (opened_->incoming().reader_sleeps == 0) std::this_thread::yield();
    write(out, std::byte(1), 1);
  });
  // Would go on for an hour without.
  in.wait_for_frame(std::chrono::hours(1));
  EXPECT_EQ(in.take(frame_), 1U);
  writer.join();
}

TEST_F(SharedRings, ATakenFrameEndsTheWaitForRoom) {
  SharedRing out(made_->outgoing());
  SharedRing in(opened_->incoming());
  for (std::uint32_t slot = 0; slot < SharedRing::slots; ++slot) write(out, std::byte(slot), 8);
  std::thread reader([&] {
    while (made_->outgoing().writer_sleeps == 0) std::this_thread::yield();
    EXPECT_EQ(in.take(frame_), 8U);
  });
  out.wait_for_room(std::chrono::hours(1));
  EXPECT_FALSE(out.room().empty());
  reader.join();
}

// A rank and its link's own thread may wait for one ring: the frame wakes one, which wakes the other.
TEST_F(SharedRings, TwoWhoWaitAreWokenOneByAFrameAndOneByTheOther) {
  SharedRing out(made_->outgoing());
  SharedRing in(opened_->incoming());
  const auto wait = [&] {
    in.wait_for_frame(std::chrono::hours(1));
    in.wake();
  };
  std::thread first(wait);
  std::thread second(wait);
  while (opened_->incoming().reader_sleeps != 2) std::this_thread::yield();
  write(out, std::byte(1), 1);
  first.join();
  second.join();
  EXPECT_EQ(in.take(frame_), 1U);
  EXPECT_EQ(opened_->incoming().reader_sleeps, 0U);
}

TEST_F(SharedRings, ASpinEndsWithAFrameOrItsTime) {
  SharedRing out(made_->outgoing());
  const SharedRing in(opened_->incoming());
  EXPECT_FALSE(in.spin_for_frame(std::chrono::microseconds(100)));
  std::thread writer([&] { write(out, std::byte(1), 1); });
  EXPECT_TRUE(in.spin_for_frame(std::chrono::hours(1)));
  writer.join();
}

// What the other process writes is believed in nothing.
TEST_F(SharedRings, PositionsAndSizesThatCannotBeAreRefused) {
  SharedRing in(opened_->incoming());
  made_->outgoing().written = SharedRing::slots + 1;
  EXPECT_THAT([&] { static_cast<void>(in.take(frame_)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("9 frames")));
  made_->outgoing().written = 1;
  made_->outgoing().bytes[0] = largest_frame_bytes + 1;
  EXPECT_THAT([&] { static_cast<void>(in.take(frame_)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("in shared memory")));
  SharedRing out(made_->outgoing());
  made_->outgoing().read = 5;  // more than was written
  EXPECT_TRUE(out.room().empty());
}

TEST_F(SharedRings, MemoryOfAnotherNameIsNotOpened) {
  EXPECT_FALSE(SharedMemory::open(""));
  EXPECT_FALSE(SharedMemory::open("nonsense"));
  EXPECT_FALSE(SharedMemory::open("1 0"));
}

}  // namespace
}  // namespace penstock
