// What processes ask of each other, and the records that they send.
#include "pipeline/control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/message_kind.h"

#include "pipeline/record_message.h"

namespace penstock::control_test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(Control, TheLowestSignalAndAnyWriterCount) {
  EXPECT_EQ(all_of({{}, {}}), (ControlWord{0, false}));
  EXPECT_EQ(all_of({{0, false}, {15, false}, {2, true}}), (ControlWord{2, true}));
  EXPECT_EQ(all_of({{31, true}}), (ControlWord{31, true}));
  EXPECT_THROW(static_cast<void>(all_of({{32, false}})), InvariantViolation);
  EXPECT_THROW(static_cast<void>(all_of({{-1, false}})), InvariantViolation);
}

struct Drawn {
  std::int32_t number = 0;
  Milliseconds time;
  Bytes bytes;

  friend bool operator==(const Drawn&, const Drawn&) = default;
};

constexpr Tag tag{MessageKind::Report, 0, 0};

TEST(RecordMessage, RecordsArriveAsTheyWere) {
  const auto ends = make_inproc_transport(2);
  const std::vector<Drawn> records{{1, {0.1}, {std::int64_t{1} << 60}}, {-7, {-3.5}, {}}};
  send_records(*ends[0], RankId{1}, tag, records);
  send_records<Drawn>(*ends[0], RankId{1}, tag, {});
  EXPECT_EQ(receive_records<Drawn>(*ends[1], RankId{0}, tag), records);
  EXPECT_TRUE(receive_records<Drawn>(*ends[1], RankId{0}, tag).empty());
}

// Another build of penstock, whose records are longer.
TEST(RecordMessage, WhatIsNoWholeNumberOfRecordsIsRefused) {
  const auto ends = make_inproc_transport(2);
  const auto receive = [&] { static_cast<void>(receive_records<Drawn>(*ends[1], RankId{0}, tag)); };
  ends[0]->send(RankId{1}, tag, {at::zeros({static_cast<std::int64_t>(sizeof(Drawn)) + 1}, at::kByte)});
  EXPECT_THAT(receive, ThrowsMessage<Error>(HasSubstr("for each record")));
  // What is no bytes, and what shows more of them than its memory has.
  for (const at::Tensor& message : {at::zeros({3}, at::kDouble), at::zeros({1}, at::kByte).expand({sizeof(Drawn)})}) {
    ends[0]->send(RankId{1}, tag, {message});
    EXPECT_THAT(receive, ThrowsMessage<Error>(HasSubstr("a contiguous tensor of Byte")));
  }
}

}  // namespace
}  // namespace penstock::control_test
