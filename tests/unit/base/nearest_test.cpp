#include "penstock/base/nearest.h"

#include <array>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace penstock {
namespace {

TEST(EditDistance, CountsSingleChanges) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("stages", "stages"), 0U);
  EXPECT_EQ(edit_distance("stage", "stages"), 1U);
  EXPECT_EQ(edit_distance("sttages", "stages"), 1U);
  EXPECT_EQ(edit_distance("stakes", "stages"), 1U);
  EXPECT_EQ(edit_distance("trian", "train"), 1U);
  EXPECT_EQ(edit_distance("", "train"), 5U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("ca", "abc"), 3U);  // a swap whose letters are not touched again
}

// The definition, without a table: slow, and plainly right.
std::size_t by_definition(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return a.size() + b.size();
  std::size_t least = by_definition(a.substr(1), b.substr(1)) + (a[0] == b[0] ? 0 : 1);
  least = std::min(least, by_definition(a.substr(1), b) + 1);
  least = std::min(least, by_definition(a, b.substr(1)) + 1);
  if (a.size() > 1 && b.size() > 1 && a[0] == b[1] && a[1] == b[0])
    least = std::min(least, by_definition(a.substr(2), b.substr(2)) + 1);
  return least;
}

TEST(EditDistance, IsWhatItsDefinitionSays) {
  std::mt19937 draw(11);
  for (int pair = 0; pair < 500; ++pair) {
    std::array<std::string, 2> words;
    for (std::string& word : words) {
      word.resize(draw() % 6);
      for (char& letter : word) letter = static_cast<char>('a' + draw() % 3);
    }
    EXPECT_EQ(edit_distance(words[0], words[1]), by_definition(words[0], words[1])) << words[0] << ' ' << words[1];
    EXPECT_EQ(edit_distance(words[0], words[1]), edit_distance(words[1], words[0]));
  }
}

TEST(NearestWord, IsTheOneThatWasMeant) {
  const std::vector<std::string> known{"train", "eval", "--stages", "--steps", "1f1b", "zb-h1", "zb-h2"};
  EXPECT_EQ(nearest_word("trian", known), "train");
  EXPECT_EQ(nearest_word("TRAIN", known), "train");
  EXPECT_EQ(nearest_word("--stage", known), "--stages");
  EXPECT_EQ(nearest_word("1fb1", known), "1f1b");
  EXPECT_EQ(nearest_word("zb-h", known), "zb-h1");  // the first of equals
  EXPECT_EQ(did_you_mean("trian", known), "; did you mean 'train'?");
}

TEST(NearestWord, IsNoneWhereNothingIsNear) {
  const std::vector<std::string> known{"train", "eval", "P"};
  for (const char* unknown : {"", "schedule", "q", "trombone"}) EXPECT_EQ(nearest_word(unknown, known), std::nullopt);
  EXPECT_EQ(nearest_word("train" + std::string(100, 'x'), known), std::nullopt);
  EXPECT_EQ(nearest_word("train", {}), std::nullopt);
  EXPECT_EQ(did_you_mean("trombone", known), "");
}

}  // namespace
}  // namespace penstock
