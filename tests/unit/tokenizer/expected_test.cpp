// Small tokenizers of each family against what the Python package says of some texts (make_data.py).
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "penstock/tokenizer/tokenizer.h"

namespace penstock {
namespace {

std::filesystem::path data() { return PENSTOCK_TOKENIZER_DATA; }

class Family : public testing::TestWithParam<const char*> {};

TEST_P(Family, EncodesAndDecodesAsThePythonPackage) {
  const Tokenizer tokenizer = load_tokenizer(data() / GetParam());
  Encoder encoder(tokenizer);
  std::ifstream file(data() / GetParam() / "expected.json");
  const nlohmann::json cases = nlohmann::json::parse(file);
  ASSERT_GT(cases.size(), 20U);
  for (const auto& each : cases) {
    const std::string text = each["text"];
    const std::vector<TokenId> tokens = each["tokens"];
    EXPECT_EQ(encoder.encode(text), tokens) << text;
    EXPECT_EQ(encoder.encode(text, {.add_special_tokens = false}), each["plain"].get<std::vector<TokenId>>()) << text;
    EXPECT_EQ(tokenizer.decode(tokens), each["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(tokens, /*skip_special_tokens=*/false), each["decoded_all"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Family, testing::Values("gpt2", "llama3", "qwen", "llama2", "mistral", "many_parts"),
                         [](const auto& family) { return std::string(family.param); });

TEST(Tokenizer, InvalidBytesAreReplacedAsPythonDoes) {
  Encoder encoder(load_tokenizer(data() / "gpt2"));
  // A character that is cut short is replaced once, bytes that begin none each.
  EXPECT_EQ(encoder.encode("a\xE4\xB8z\xFF\xFE"), encoder.encode("a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD"));
  EXPECT_EQ(encoder.encode("\xED\xA0\x80"), encoder.encode("\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"));
}

TEST(Tokenizer, SpecialTokensInATextMayBeText) {
  const Tokenizer tokenizer = load_tokenizer(data() / "gpt2");
  Encoder encoder(tokenizer);
  const TokenId end = tokenizer.end_of_document().value();
  EXPECT_EQ(tokenizer.token(end), "<|endoftext|>");
  EXPECT_THAT(encoder.encode("<|endoftext|>"), testing::ElementsAre(end));
  const auto text = encoder.encode("<|endoftext|>", {.add_special_tokens = true, .read_special_tokens = false});
  EXPECT_THAT(text, testing::Not(testing::Contains(end)));
  EXPECT_EQ(tokenizer.decode(text), "<|endoftext|>");
}

TEST(Tokenizer, LongWordsAreTheSameAsShortOnes) {
  // The heap of long words and the search of short ones give the same tokens: "ab" repeated has a period.
  const Tokenizer tokenizer = load_tokenizer(data() / "gpt2");
  Encoder encoder(tokenizer);
  std::string word;
  for (int count = 0; count < 200; ++count) {
    word += "pipeline";
    EXPECT_EQ(tokenizer.decode(encoder.encode(word)), word);
  }
}

}  // namespace
}  // namespace penstock
