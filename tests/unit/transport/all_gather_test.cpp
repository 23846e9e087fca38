// What is read as it lies is believed in nothing. That values and texts arrive is the conformance suite's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/transport/layout.h"
#include "penstock/transport/transport.h"

namespace penstock::all_gather_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Numbers, AreReadFromContiguousTensorsOfTheirTypeOnly) {
  EXPECT_THAT(numbers_of<double>(at::arange(3, at::kDouble)), ElementsAre(0, 1, 2));
  EXPECT_TRUE(numbers_of<std::int64_t>(at::empty({0}, at::kLong)).empty());
  const at::Tensor four = at::arange(4, at::kDouble);
  // An expanded tensor shows more elements than its memory has.
  for (const at::Tensor& tensor :
       {at::Tensor(), four.view({2, 2}).t(), four[0].expand({1'000'000}), four.slice(0, 0, 4, 2), four.to(at::kFloat),
        at::empty({4}, at::kMeta).to(at::kDouble)})
    EXPECT_THROW(static_cast<void>(numbers_of<double>(tensor)), Error);
}

TEST(AllGather, ValuesThatAreNotWhatTheySeemAreRefused) {
  const auto ends = make_inproc_transport(2);
  ends[1]->send({0}, {first_own_kind, 1, 0}, {at::ones({1}, at::kDouble).expand({1'000'000})});
  try {
    static_cast<void>(all_gather(*ends[0], {1.0}));
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::RunFailed);
    EXPECT_THAT(error.what(), HasSubstr("expected a contiguous tensor of Double on the host"));
  }
}

TEST(Bytes, OfTensorsAreThoseOfTheirElements) {
  const at::Tensor row = at::ones({3});
  EXPECT_EQ(bytes_of(row).count, 12);
  EXPECT_EQ(bytes_of(at::Tensor()).count, 0);
  // What shares memory counts each time.
  EXPECT_EQ(bytes_of(std::vector<at::Tensor>{row, row.expand({2, 3}), at::Tensor()}).count, 12 + 24);
}

}  // namespace
}  // namespace penstock::all_gather_test
