#include <gmock/gmock.h>

#include <torch/torch.h>

#include "penstock/data/bigram.h"
#include "penstock/data/dataset.h"

#include "data_fixture.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Images : public DataTest {
 protected:
  [[nodiscard]] std::string refusal(const std::string& images, const std::string& labels) const {
    return refusal_of({{write("images", images), write("labels", labels)}, DataKind::Images});
  }
};

std::string big_endian(std::uint32_t number) {
  std::string bytes;
  for (const unsigned shift : {24U, 16U, 8U, 0U}) bytes += static_cast<char>((number >> shift) & 0xffU);
  return bytes;
}

std::string idx(std::uint32_t magic, std::initializer_list<std::uint32_t> sizes, const std::string& values) {
  std::string content = big_endian(magic);
  for (const std::uint32_t size : sizes) content += big_endian(size);
  return content + values;
}

std::string counted(std::size_t count) {
  std::string values;
  for (std::size_t value = 0; value < count; ++value) values += static_cast<char>(value % 256);
  return values;
}

TEST_F(Images, ComeInEitherOrderAndEveryTenthIsHeldOut) {
  const auto images = write("images", idx(0x803, {20, 2, 3}, counted(120)));
  const auto labels = write("labels", idx(0x801, {20}, counted(20)));
  for (const DataSettings& settings :
       {DataSettings{{images, labels}}, DataSettings{{labels, images}, DataKind::Images}}) {
    const Data data = open_data(settings);
    EXPECT_EQ(data.description, (DataDescription{DataKind::Images, 0, 1, 2, 3, 20, 20}));
    ASSERT_EQ(data.train->size(), 18);
    ASSERT_EQ(data.held_out->size(), 2);
    const std::vector<std::int64_t> samples = {1, 0};
    const Batch batch = data.held_out->batch(samples);
    EXPECT_EQ(batch.input.sizes(), (std::vector<std::int64_t>{2, 1, 2, 3}));
    EXPECT_TRUE(at::equal(batch.target, at::tensor({19, 9}, at::kLong)));
    EXPECT_TRUE(at::equal(batch.input[1].flatten(), at::arange(54, 60).to(at::kFloat) / 255));
    EXPECT_EQ(data.train->batch(samples).target[0].item<std::int64_t>(), 1);
  }
  EXPECT_EQ(open_data({{images, labels}, std::nullopt, 128, 0}).train->size(), 20);
}

TEST_F(Images, MayHaveChannels) {
  const auto images = write("images", idx(0x804, {2, 3, 1, 2}, counted(12)));
  const auto labels = write("labels", idx(0x801, {2}, std::string("\x07\x02", 2)));
  const Data data = open_data({{images, labels}, std::nullopt, 128, 0});
  EXPECT_EQ(data.description, (DataDescription{DataKind::Images, 0, 3, 1, 2, 8, 2}));
  const std::int64_t sample = 1;
  const Batch batch = data.train->batch(std::span(&sample, 1));
  EXPECT_TRUE(at::equal(batch.input, at::arange(6, 12).view({1, 3, 1, 2}).to(at::kFloat) / 255));
}

TEST_F(Images, OfAWrongSizeOrKindAreRefused) {
  const std::string images = idx(0x803, {4, 2, 2}, counted(16));
  const std::string labels = idx(0x801, {4}, counted(4));
  EXPECT_THAT(refusal(images + "x", labels), AllOf(HasSubstr("images is 33 bytes"), HasSubstr("expected 32 bytes")));
  EXPECT_THAT(refusal(images, labels.substr(0, 11)), AllOf(HasSubstr("is 11 bytes"), HasSubstr("expected 12 bytes")));
  EXPECT_THAT(refusal(images.substr(0, 9), labels), HasSubstr("an IDX header of at least 12 bytes"));
  EXPECT_THAT(refusal("", labels), HasSubstr("images is 0 bytes"));
  EXPECT_THAT(refusal(images, idx(0x801, {5}, counted(5))), HasSubstr("4 images in"));
  EXPECT_THAT(refusal(images, images), HasSubstr("both hold images"));
  EXPECT_THAT(refusal(labels, labels), HasSubstr("both hold labels"));
  EXPECT_THAT(refusal(idx(0xd03, {4, 2, 2}, counted(64)), labels), HasSubstr("begins with 0x00000d03"));
  EXPECT_THAT(refusal("\x1f\x8b\x08\x08 compressed", labels), HasSubstr("gunzip"));
  EXPECT_THAT(refusal(idx(0x804, {0xffffffff, 0xffff, 0xffff, 0xffff}, ""), labels), HasSubstr("in dimension 3"));
  EXPECT_THAT(refusal(idx(0x803, {4, 0xffffffff, 1}, ""), labels), HasSubstr("the size 4294967295 in dimension 1"));
  EXPECT_THAT(refusal(idx(0x803, {0, 2, 2}, ""), idx(0x801, {0}, "")), HasSubstr("is empty"));
  EXPECT_THAT(refusal_of({{write("images", images)}}), HasSubstr("1 file for images"));
}

class Bigram : public DataTest {};

TEST_F(Bigram, IsTheEntropyOfATextThatABigramExplains) {
  // After "a" come "b" and "c" in turn, after those always "a": half of all bytes cost ln 2, the others nothing.
  std::string text;
  for (int index = 0; index < 100'000; ++index) text += (index * 7919) % 13 < 6 ? "ab" : "ac";
  const Data data = open_data({{write("a.txt", text)}, DataKind::Text, 16, 0.1});
  const double p = 6.0 / 13;
  EXPECT_NEAR(bigram_loss(data), -(p * std::log(p) + (1 - p) * std::log(1 - p)) / 2, 0.002);
}

TEST_F(Bigram, KnowsNothingOfBytesItHasNotSeen) {
  // Two blocks of different bytes: the second is held out, so the best smoothing is the largest, all bytes alike.
  const Data data =
      open_data({{write("a.txt", std::string(1000, 'a') + std::string(1000, 'b'))}, DataKind::Text, 9, 0.5});
  EXPECT_NEAR(bigram_loss(data), std::log(256), 0.05);
}

TEST_F(Bigram, IsForTextWithAHeldOutSplit) {
  const auto text = write("a.txt", std::string(1000, 'a'));
  const auto tokens = write("a.bin", std::string(1000, 'a'));
  for (const DataSettings& settings :
       {DataSettings{{text}, DataKind::Text, 9, 0}, DataSettings{{tokens}, std::nullopt, 9, 0.1}}) {
    const Data data = open_data(settings);
    EXPECT_THROW(static_cast<void>(bigram_loss(data)), Error);
  }
}

}  // namespace
}  // namespace penstock
