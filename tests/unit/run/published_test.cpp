#include "run/published.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/models/write_model.h"
#include "penstock/run/train.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Published : public testing::Test {
 protected:
  Published() : folder_(std::filesystem::path(testing::TempDir()) / ("penstock_model_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(folder_);
    settings_.model.kind = model_in("base", 2);
    settings_.model.from_scratch = true;
    settings_.data.context = 8;
    settings_.data.paths = {(folder_ / "text.txt").string()};
    std::string text;
    for (int line = 0; line < 2000; ++line) text += "ab";
    write_file_atomically(folder_ / "text.txt", text);
  }
  ~Published() override { std::filesystem::remove_all(folder_); }

  // A llama of that many layers for 16 positions, whose tokenizer has no token that ends a document by its name.
  [[nodiscard]] ModelChoice model_in(const std::string& name, int layers, const std::string& more = "") const {
    const std::filesystem::path model = folder_ / name;
    std::filesystem::create_directories(model);
    write_file_atomically(
        model / "config.json",
        R"({"model_type": "llama", "vocab_size": 4, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2,
            "max_position_embeddings": 16, "num_hidden_layers": )" +
            std::to_string(layers) + more + "}");
    write_file_atomically(
        model / "tokenizer.json",
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "z": 3}, "merges": ["a b"]}})");
    return {(model / "").string()};
  }

  template <class Call>
  [[nodiscard]] static std::string refusal_of(const Call& call) {
    try {
      call();
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      return error.what();
    }
  }

  // As a run leaves it that was begun with these settings.
  void begin(const std::string& out) {
    settings_.output.folder = (folder_ / out).string();
    if (settings_.model.kind == ModelKind::Published) {
      settings_ = with_published_shape(settings_);
      carry_model_files(settings_.model.kind.folder(), kept_model(settings_.output.folder));
    }
    std::filesystem::create_directories(settings_.output.folder);
    write_file_atomically(std::filesystem::path(settings_.output.folder) / "config.toml", to_toml(settings_));
    settings_.output.resume = true;
  }

  [[nodiscard]] std::string refusal_to_go_on_with(const ModelChoice& model) const {
    TrainSettings other = settings_;
    other.model.kind = model;
    return refusal_of([&] { static_cast<void>(with_published_shape(other)); });
  }

  std::filesystem::path folder_;
  TrainSettings settings_;
};

TEST_F(Published, ARunGoesOnOnlyWithTheModelThatItBeganWith) {
  begin("run");
  EXPECT_EQ(refusal_to_go_on_with(settings_.model.kind), "");
  EXPECT_EQ(refusal_to_go_on_with(model_in("moved", 2)), "") << "the same model elsewhere";
  const std::string other = refusal_to_go_on_with(model_in("other", 3));
  EXPECT_THAT(other, AllOf(HasSubstr("`model` is " + (folder_ / "other").string()), HasSubstr("trains another: "),
                           HasSubstr((folder_ / "base").string()), HasSubstr("drop `model` or choose another `out`"),
                           Not(HasSubstr("`layers`"))));
  EXPECT_THAT(refusal_to_go_on_with(ModelKind::Gpt),
              AllOf(HasSubstr("`model` is gpt, "), HasSubstr((folder_ / "base").string()), Not(HasSubstr("published"))))
      << folder_;
}

TEST_F(Published, ARunOfABuiltInNetworkDoesNotGoOnWithAFolder) {
  const ModelChoice folder = settings_.model.kind;
  settings_.model.kind = ModelKind::Gpt;
  settings_.model.from_scratch = false;
  begin("run");
  EXPECT_THAT(refusal_to_go_on_with(folder), AllOf(HasSubstr("`model` is " + (folder_ / "base").string()),
                                                   HasSubstr("trains another: gpt;"), Not(HasSubstr("`layers`"))));
}

TEST_F(Published, AContextBeyondTheModelsPositionsIsRefused) {
  settings_.model.kind = model_in("ends", 2, R"(, "eos_token_id": 3)");
  const auto refusal_at = [&](std::int64_t context) {
    settings_.data.context = context;
    return refusal_of([&] { static_cast<void>(published_job(settings_)); });
  };
  EXPECT_EQ(refusal_at(16), "");
  EXPECT_THAT(refusal_at(17), AllOf(HasSubstr("`context` is 17; expected at most 16, the positions that the model was "
                                              "made for"),
                                    HasSubstr("lower `context`")));
}

TEST_F(Published, DocumentsEndWithTheTokenOfTheConfiguration) {
  settings_.data.documents = Documents::Apart;
  const auto end_of = [&](const std::string& more) {
    const ModelChoice model = model_in("ends", 2, more);
    settings_.model.kind = model;
    return model_of(settings_, model.folder()).decoder.documents->end_token;
  };
  EXPECT_EQ(end_of(R"(, "eos_token_id": 3)"), 3);
  EXPECT_EQ(end_of(R"(, "eos_token_id": [1, 3])"), 1);
  for (const char* none : {"", R"(, "eos_token_id": 4)", R"(, "eos_token_id": null)", R"(, "eos_token_id": [])"})
    EXPECT_THAT(refusal_of([&] { static_cast<void>(end_of(none)); }), HasSubstr("nothing says with which token"))
        << none;
}

TEST_F(Published, WhereNothingEndsADocumentTheTokensAreToBeMade) {
  EXPECT_THAT(refusal_of([&] { static_cast<void>(published_job(settings_)); }),
              AllOf(HasSubstr("no token that is known to end a document"),
                    HasSubstr("make the tokens with penstock tokenize and name it there with `end_of_document`")));
}

}  // namespace
}  // namespace penstock
