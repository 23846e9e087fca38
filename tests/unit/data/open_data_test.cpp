#include <gmock/gmock.h>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/data/bigram.h"
#include "penstock/data/dataset.h"

#include "data_fixture.h"

namespace penstock {
namespace {

class Text : public DataTest {};

TEST_F(Text, WindowsAreShiftedByOne) {
  const auto path = write("a.txt", "abcdefghij");
  const Data data = open_data({{path}, "auto", 3, 0});
  EXPECT_EQ(data.description, (DataDescription{DataKind::Text, 256, 0, 0, 0, 0, 10}));
  EXPECT_EQ(data.held_out, nullptr);
  EXPECT_EQ(data.train->size(), 7);
  const std::vector<std::int64_t> samples = {0, 6, 0};
  const Batch batch = data.train->batch(samples);
  EXPECT_TRUE(at::equal(batch.input, at::tensor({97, 98, 99, 103, 104, 105, 97, 98, 99}, at::kLong).view({3, 3})));
  EXPECT_TRUE(at::equal(batch.target, at::tensor({98, 99, 100, 104, 105, 106, 98, 99, 100}, at::kLong).view({3, 3})));
}

}  // namespace
}  // namespace penstock
