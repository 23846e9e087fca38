#include "tokenizer/post_processor.h"

#include <fmt/format.h>
#include <limits>

namespace penstock {
namespace {

constexpr const char* supported_post_processors =
    "one of BertProcessing, ByteLevel, RobertaProcessing, Sequence and TemplateProcessing";

TokenId read_id(const JsonValue& json) {
  return static_cast<TokenId>(json.whole_number(std::numeric_limits<std::int32_t>::max()));
}

// What stands around what was there before.
void wrap(PostProcessor& around, const std::vector<TokenId>& before, const std::vector<TokenId>& behind) {
  around.before.insert(around.before.begin(), before.begin(), before.end());
  around.behind.insert(around.behind.end(), behind.begin(), behind.end());
}

void add_template(const JsonValue& json, PostProcessor& around) {
  std::vector<TokenId> before;
  std::vector<TokenId> behind;
  int texts = 0;
  const JsonValue single = json.at("single");
  if (single.is_text()) throw single.refused("a list of pieces");
  single.for_each_element([&](const JsonValue& piece) {
    if (piece.has("Sequence")) {
      ++texts;
      return;
    }
    const std::string& name = piece.at("SpecialToken").at("id").text();
    json.at("special_tokens").at(name).at("ids").for_each_element([&](const JsonValue& id) {
      (texts == 0 ? before : behind).push_back(read_id(id));
    });
  });
  if (texts != 1) throw single.unsupported(counted(texts, "text") + " in a template", "one");
  wrap(around, before, behind);
}

// In BERT's and RoBERTa's, "cls" and "sep" are a token and its number each.
TokenId read_pair(const JsonValue& json) {
  std::vector<TokenId> ids;
  std::size_t index = 0;
  json.for_each_element([&](const JsonValue& element) {
    if (index++ == 1) ids.push_back(read_id(element));
  });
  if (index != 2) throw json.refused("a token and its number");
  return ids.front();
}

void add(const JsonValue& json, PostProcessor& around) {
  const std::string& type = json.type();
  if (type == "TemplateProcessing") {
    add_template(json, around);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    wrap(around, {read_pair(json.at("cls"))}, {read_pair(json.at("sep"))});
  } else if (type == "Sequence") {
    json.at("processors").for_each_element([&](const JsonValue& step) { add(step, around); });
  } else if (type != "ByteLevel") {  // which changes where tokens stand in the text, and no token
    throw json.unsupported(fmt::format("the post-processor \"{}\"", shortened(type)), supported_post_processors);
  }
}

}  // namespace

PostProcessor read_post_processor(const JsonValue& json) {
  PostProcessor around;
  if (!json.is_null()) add(json, around);
  return around;
}

}  // namespace penstock
