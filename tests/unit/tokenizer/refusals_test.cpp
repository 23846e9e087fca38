#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>

#include "penstock/base/error.h"
#include "penstock/tokenizer/tokenizer.h"

#include "tokenizer/expression.h"
#include "tokenizer/json_line.h"
#include "tokenizer/parts.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <class Call>
std::string refusal_of(const Call& call) {
  try {
    call();
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
}

std::string refusal_of_file(const std::string& text) {
  return refusal_of([&] { static_cast<void>(read_parts(text, "t.json")); });
}

const std::string model = R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})";

TEST(TokenizerRefusals, KindsThatAreNotSupportedAreNamed) {
  EXPECT_EQ(refusal_of_file("{" + model + "}"), "");
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"WordPiece","vocab":{"a":0}}})"),
              HasSubstr("the model \"WordPiece\""));
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"Unigram","vocab":[["a",-1.5]]}})"),
              HasSubstr("the model \"Unigram\""));
  EXPECT_THAT(refusal_of_file(R"({"pre_tokenizer":{"type":"BertPreTokenizer"},)" + model + "}"),
              AllOf(HasSubstr("t.json: pre_tokenizer"), HasSubstr("\"BertPreTokenizer\""), HasSubstr("ByteLevel")));
  EXPECT_THAT(refusal_of_file(R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Nmt"}]},)" + model + "}"),
              AllOf(HasSubstr("normalizer.normalizers[0]"), HasSubstr("\"Nmt\"")));
  EXPECT_THAT(refusal_of_file(R"({"decoder":{"type":"CTC"},)" + model + "}"), HasSubstr("the decoder \"CTC\""));
  EXPECT_THAT(refusal_of_file(R"({"post_processor":{"type":"New"},)" + model + "}"), HasSubstr("\"New\""));
}

TEST(TokenizerRefusals, MalformedFilesNameThePlace) {
  EXPECT_THAT(refusal_of_file("{\n\"model\": {"), HasSubstr("t.json line 2 is no JSON"));
  EXPECT_THAT(refusal_of_file("[]"), HasSubstr("t.json is a list"));
  EXPECT_THAT(refusal_of_file("{}"), HasSubstr("has no \"model\""));
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"BPE","vocab":{"a":"x"},"merges":[]}})"), HasSubstr("model.vocab.a"));
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}})"),
              HasSubstr("4000000000"));
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})"),
              AllOf(HasSubstr("model.merges[0]"), HasSubstr("\"b\", which is beyond the vocabulary")));
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["ab"]}})"),
              HasSubstr("model.merges[0]"));
  EXPECT_THAT(refusal_of_file(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","b","c"]]}})"),
              HasSubstr("model.merges[1]"));
  EXPECT_THAT(refusal_of_file(R"({"added_tokens":[{"id":0,"content":"x"}],)" + model + "}"),
              HasSubstr("added_tokens[0].id"));
  EXPECT_THAT(refusal_of_file(R"({"added_tokens":[{"id":5}],)" + model + "}"),
              HasSubstr("added_tokens[0] has no \"content\""));
  EXPECT_THAT(refusal_of_file(std::string(40, '[')), HasSubstr("more values within values"));
}

TEST(TokenizerRefusals, ATokenBeyondTheVocabulary) {
  const Tokenizer tokenizer(read_parts("{" + model + "}", "t.json"));
  EXPECT_EQ(tokenizer.vocabulary(), 3U);
  EXPECT_THAT(refusal_of([&] { static_cast<void>(tokenizer.decode(std::vector<TokenId>{2, 3})); }),
              AllOf(HasSubstr("the token 3"), HasSubstr("below 3")));
}

TEST(TokenizerRefusals, ExpressionsThatMeanAnotherThing) {
  const auto refused = [](const char* expression) {
    return refusal_of([&] { static_cast<void>(pcre_expression(expression, "t.json: pattern")); });
  };
  EXPECT_THAT(refused("[a[b]]"), HasSubstr("a set within a set"));
  EXPECT_THAT(refused("[a&&b]"), HasSubstr("an intersection"));
  EXPECT_THAT(refused("a{1,3}+"), HasSubstr("an interval with +"));
  EXPECT_THAT(refused("(?m)a"), HasSubstr("flags \"m\""));
  EXPECT_THAT(refused("\\"), HasSubstr("backslash at the end"));
  EXPECT_EQ(refused(R"([^\r\n\p{L}\[\]]?+\p{Han}++|(?i:'s)|(?!\S)|(?<!a)b{2,3}?)"), "");
}

TEST(JsonLine, TheFieldOfTheOuterObject) {
  const auto text = [](const char* line) { return text_of_json_line(line, "text", "a.jsonl line 3"); };
  EXPECT_EQ(text(R"({"id":1,"meta":{"text":"inner"},"text":"outer\n\u00e9","more":[{"text":"last"}]})"),
            "outer\n\xC3\xA9");
  EXPECT_EQ(text("{\"text\":\"\xFF\"}"), "\xEF\xBF\xBD");
  EXPECT_EQ(refusal_of([&] { text(R"({"body":"x"})"); }),
            "a.jsonl line 3 has no \"text\"; expected the document under that name; name another one with `field`, "
            "or correct the line");
  EXPECT_THAT(refusal_of([&] { text(R"({"text":5})"); }), HasSubstr("a.jsonl line 3: \"text\" is a number"));
  EXPECT_THAT(refusal_of([&] { text("[1]"); }), HasSubstr("a.jsonl line 3 is a list"));
  EXPECT_THAT(refusal_of([&] { text(R"({"text":"x)"); }), HasSubstr("a.jsonl line 3 is no JSON"));
  EXPECT_THAT(refusal_of([&] { text((R"({"a":)" + std::string(100, '[')).c_str()); }),
              HasSubstr("values within values"));
}

}  // namespace
}  // namespace penstock
