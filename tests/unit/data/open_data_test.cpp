#include <array>
#include <gmock/gmock.h>
#include <limits>
#include <numeric>
#include <unistd.h>

#include <torch/torch.h>

#include "penstock/data/dataset.h"
#include "penstock/data/order.h"

#include "data_fixture.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Text : public DataTest {};
class Tokens : public DataTest {};

std::string text_of(const at::Tensor& row) {
  std::string text;
  for (std::int64_t place = 0; place < row.numel(); ++place) text += static_cast<char>(row[place].item<std::int64_t>());
  return text;
}

Batch sample_of(const Dataset& dataset, std::int64_t sample) { return dataset.batch(std::span(&sample, 1)); }

TEST_F(Text, WindowsAreShiftedByOne) {
  const auto path = write("a.txt", "abcdefghij");
  const Data data = open_data({{path}, std::nullopt, 3, 0});
  EXPECT_EQ(data.description, (DataDescription{DataKind::Text, 256, 0, 0, 0, 0, 10}));
  EXPECT_EQ(data.held_out, nullptr);
  EXPECT_EQ(data.train->size(), 7);
  const std::vector<std::int64_t> samples = {0, 6, 0};
  const Batch batch = data.train->batch(samples);
  EXPECT_TRUE(at::equal(batch.input, at::tensor({97, 98, 99, 103, 104, 105, 97, 98, 99}, at::kLong).view({3, 3})));
  EXPECT_TRUE(at::equal(batch.target, at::tensor({98, 99, 100, 104, 105, 106, 98, 99, 100}, at::kLong).view({3, 3})));
  EXPECT_THROW(sample_of(*data.train, 7), InvariantViolation);
  EXPECT_THROW(sample_of(*data.train, -1), InvariantViolation);
}

TEST_F(Text, FilesAndFoldersAreOneTextInTheOrderOfTheirPaths) {
  const std::string large(10'000, 'L');  // above the size from which files are mapped
  static_cast<void>(write("tree/b/2.h", "two"));
  static_cast<void>(write("tree/b/10.h", "ten"));
  static_cast<void>(write("tree/a.h", large));
  static_cast<void>(write("tree/c.h", ""));
  static_cast<void>(write("tree/d.h", "end"));
  static_cast<void>(write("tree/.git/x", "hidden"));
  const auto outside = write("outside.txt", "outside");
  std::filesystem::create_symlink(outside, folder() / "tree/link.h");
  std::filesystem::create_directory_symlink(folder(), folder() / "tree/up");
  const Data data = open_data({{outside, folder() / "tree"}, DataKind::Text, 10'015, 0});
  ASSERT_EQ(data.description.bytes_or_samples, 10'016);
  const Batch batch = sample_of(*data.train, 0);
  EXPECT_EQ(text_of(batch.input[0]) + text_of(batch.target[0].slice(0, -1)), "outside" + large + "tentwoend");
}

TEST_F(Text, UnusableDataSaysWhy) {
  const auto empty = write("empty.txt", "");
  const auto shorter = write("short.txt", "0123456789");
  std::filesystem::create_directories(folder() / "bare/below");
  EXPECT_THAT(refusal_of({{folder() / "none.txt"}}), HasSubstr("there is no file or folder"));
  EXPECT_THAT(refusal_of({{}}), HasSubstr("no data"));
  EXPECT_THAT(refusal_of({{empty}}), AllOf(HasSubstr("empty.txt is empty"), HasSubstr("at least 129 bytes")));
  EXPECT_THAT(refusal_of({{folder() / "bare"}}), HasSubstr("bare holds no file"));
  EXPECT_THAT(refusal_of({{shorter}, std::nullopt, 10, 0}), AllOf(HasSubstr("holds 10 bytes; expected at least 11"),
                                                                  HasSubstr("train with a `context` of at most 9")));
  EXPECT_THAT(refusal_of({{shorter}, std::nullopt, 5, 0.1}),
              AllOf(HasSubstr("holds 10 bytes; expected at least 12"), HasSubstr("a `context` of at most 4")));
  EXPECT_EQ(open_data({{shorter}, std::nullopt, 9, 0}).train->size(), 1);
  EXPECT_EQ(open_data({{shorter}, std::nullopt, 4, 0.1}).held_out->size(), 1);
  EXPECT_THAT(refusal_of({{shorter}, std::nullopt, 0}), HasSubstr("a context of 0"));
  for (const double share : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_THAT(refusal_of({{shorter}, std::nullopt, 2, share}), HasSubstr("a held-out share of"));
  EXPECT_THAT(refusal_of({{"/dev/null"}}), HasSubstr("neither a file nor a folder"));
}

TEST_F(Text, WhatCannotBeReadIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  static_cast<void>(write("tree/locked/a.txt", "text"));
  const auto locked = write("tree/b.txt", "text");
  std::filesystem::permissions(locked, std::filesystem::perms::none);
  EXPECT_THAT(refusal_of({{folder() / "tree"}}), HasSubstr("b.txt"));
  std::filesystem::permissions(folder() / "tree/locked", std::filesystem::perms::none);
  EXPECT_THAT(refusal_of({{folder() / "tree"}}), HasSubstr("tree/locked"));
  std::filesystem::permissions(folder() / "tree/locked", std::filesystem::perms::owner_all);
}

TEST_F(Tokens, AreReadAsLittleEndian) {
  const auto first = write("a.bin", std::string("\x01\x00\x00\x02\xff\xff", 6));
  const auto second = write("b.bin", std::string("\x05\x00\x06\x00", 4));
  const Data data = open_data({{first, second}, std::nullopt, 4, 0});
  EXPECT_EQ(data.description, (DataDescription{DataKind::Tokens16, 65'536, 0, 0, 0, 0, 5}));
  const Batch batch = sample_of(*data.train, 0);
  EXPECT_TRUE(at::equal(batch.input[0], at::tensor({1, 512, 65'535, 5}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.target[0], at::tensor({512, 65'535, 5, 6}, at::kLong)));

  const auto wide = write("c.bin", std::string("\x01\x00\x00\x00\x00\x00\x01\x00", 8));
  const Data wide_data = open_data({{wide}, DataKind::Tokens32, 1, 0});
  EXPECT_EQ(wide_data.description, (DataDescription{DataKind::Tokens32, 65'537, 0, 0, 0, 0, 2}));
  EXPECT_EQ(sample_of(*wide_data.train, 0).target.item<std::int64_t>(), 65'536);
}

TEST_F(Tokens, NoWindowCrossesFromOneSplitIntoTheOther) {
  constexpr std::int64_t size = 40'000;
  std::vector<std::uint32_t> places(size);  // each token is its own place, so a window tells where it comes from
  std::iota(places.begin(), places.end(), 0);
  const auto path =
      write("a.bin", {reinterpret_cast<const char*>(places.data()), places.size() * sizeof(std::uint32_t)});
  for (const std::int64_t context : {1, 5, 100, 9000}) {
    for (const double share : {0.001, 0.1, 0.34, 0.5, 0.9}) {
      SCOPED_TRACE(testing::Message() << "context " << context << ", held out " << share);
      const Data data = open_data({{path}, DataKind::Tokens32, context, share});
      const std::array<const Dataset*, 2> splits = {data.train.get(), data.held_out.get()};
      std::vector<int> owner(size, -1);
      for (int split = 0; split < 2; ++split) {
        for (const std::int64_t sample : evenly_spaced_samples(splits.at(split)->size(), 3000 / context + 10)) {
          const Batch batch = sample_of(*splits.at(split), sample);
          const auto first = batch.input[0][0].item<std::int64_t>();
          ASSERT_TRUE(at::equal(batch.input[0], at::arange(first, first + context)));
          ASSERT_TRUE(at::equal(batch.target[0], batch.input[0] + 1));
          for (auto place = static_cast<std::size_t>(first); place <= static_cast<std::size_t>(first + context);
               ++place) {
            ASSERT_NE(owner[place], 1 - split) << "token " << place << " is in both splits";
            owner[place] = split;
          }
        }
        const std::int64_t last = splits.at(split)->size() - 1;
        EXPECT_LT(sample_of(*splits.at(split), last).target.max().item<std::int64_t>(), size);
      }
    }
  }
}

TEST_F(Tokens, AreAsWideAsTheirIndexSays) {
  const auto indexed = [&](const std::string& name, const std::string& dtype, const std::string& tokens,
                           std::int64_t count) {
    static_cast<void>(write(name + ".idx", std::string(16, '\0')));
    static_cast<void>(
        write(name + ".json", R"({"format": "penstock corpus 1", "dtype": ")" + dtype +
                                  R"(", "vocabulary": 9, "documents": 1, "end_of_document": 0, "tokens": )" +
                                  std::to_string(count) + R"(, "tokenizer_xxh3_128": "x"})"));
    return write(name + ".bin", tokens);
  };
  const auto wide = indexed("wide", "uint32", std::string("\x01\x00\x00\x00\x02\x00\x00\x00", 8), 2);
  const auto narrow = indexed("narrow", "uint16", std::string("\x01\x00\x02\x00", 4), 2);
  const Data data = open_data({{wide}, std::nullopt, 1, 0});
  EXPECT_EQ(data.description, (DataDescription{DataKind::Tokens32, 3, 0, 0, 0, 0, 2}));
  EXPECT_EQ(open_data({{narrow}, std::nullopt, 1, 0}).description.kind, DataKind::Tokens16);
  EXPECT_THAT(refusal_of({{wide}, DataKind::Tokens16, 1, 0}),
              AllOf(HasSubstr("`data_kind` = tokens16"), HasSubstr("wide.bin"), HasSubstr("tokens32")));
  EXPECT_THAT(refusal_of({{wide, narrow}, std::nullopt, 1, 0}), HasSubstr("files before it tokens32"));
  // Another's file of that name, such as the texts that the tokens were made of.
  const auto bare = write("bare.bin", std::string("\x01\x00\x02\x00", 4));
  static_cast<void>(write("bare.json", "[\"text\"]"));
  EXPECT_EQ(open_data({{bare}, std::nullopt, 1, 0}).description.kind, DataKind::Tokens16);
}

TEST_F(Tokens, OfAWrongSizeOrKindAreRefused) {
  const auto odd = write("odd.bin", std::string(601, 'x'));
  const auto even = write("even.bin", std::string(602, '\x70'));
  const auto text = write("a.txt", "text");
  EXPECT_THAT(refusal_of({{odd}}), HasSubstr("odd.bin is 601 bytes; expected a multiple of 2"));
  EXPECT_THAT(refusal_of({{even}, DataKind::Tokens32}), HasSubstr("even.bin is 602 bytes; expected a multiple of 4"));
  EXPECT_THAT(refusal_of({{even, text}}), HasSubstr("1 file of tokens (.bin) among 2 files"));
  EXPECT_THAT(refusal_of({{even}, std::nullopt, 300}), HasSubstr("holds 301 tokens"));
  const auto large = write("large.bin", std::string(800, '\x80'));
  EXPECT_THAT(refusal_of({{large}, DataKind::Tokens32, 1}), HasSubstr("the token 2155905152"));
}

}  // namespace
}  // namespace penstock
