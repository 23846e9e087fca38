// What a run chooses by a word: its text is read back, and what is no choice is refused in a sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/setting_text.h"
#include "penstock/settings/settings.h"

namespace penstock::choices_test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

template <class Value>
Value read(const std::string& text) {
  Value value = {};
  read_setting("some-setting", text, value);
  return value;
}
template <>
Microbatches read(const std::string& text) {
  return {text};
}

/// Each text is the one form of its value.
template <class Value>
void expect_round_trips(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    const auto value = read<Value>(text);
    EXPECT_EQ(setting_text(value), text);
    EXPECT_EQ(read<Value>(setting_text(value)), value);
  }
}

/// Each text is refused in one line that has these words, however long it is.
template <class Value>
void expect_refused(const std::vector<std::string>& texts, const std::string& words) {
  for (const std::string& text : texts)
    EXPECT_THAT([&] { static_cast<void>(read<Value>(text)); },
                ThrowsMessage<Error>(AllOf(HasSubstr(words), Not(HasSubstr("\n")), testing::SizeIs(testing::Lt(500U)))))
        << text;
}

TEST(Choices, TheirTextIsReadBack) {
  expect_round_trips<CutChoice>({"uniform", "parameters", "auto", "3", "3,6,9"});
  expect_round_trips<ScheduleChoice>({"1f1b", "zb-v", "auto", "own.csv", "folder/own.csv"});
  expect_round_trips<Microbatches>({"auto", "8", "-1", "0"});
  expect_round_trips<Ranks>({"auto", "4", "0"});
  expect_round_trips<Recompute>({"none", "full", "selected", "auto", "0", "1-4", "1-4,7"});
}

TEST(Choices, WhatIsNoneIsRefused) {
  const std::string endless(100'000, 'x');
  expect_refused<CutChoice>(
      {"", "x", "3,", "3,,6", "3.5", "3, 6", "99999999999999999999", endless},
      "is not a list of numbers; expected uniform, parameters, auto, or the ascending first layers");
  expect_refused<CutChoice>({"0", "-3", "3,3", "6,3"}, "cuts before layer");
  expect_refused<ScheduleChoice>({"own.txt", "folder/name", endless + "."}, "`schedule` is \"");
  expect_refused<Microbatches>({"", "x", "3.5", "8 ", "99999999999"}, "`microbatches` is \"");
  expect_refused<Ranks>({"", "x", "auto ", endless}, "`ranks` is \"");
  expect_refused<Recompute>({"", "x", "4-1", "-1", "1-", "1,", "1,,2", "1-2-3", endless},
                            "expected none, full, selected, auto, or layers, such as 1-4,7; correct `recompute`");
}

TEST(CutChoice, KnowsItsKind) {
  EXPECT_EQ(CutChoice().kind(), CutChoice::Uniform);
  EXPECT_EQ(CutChoice("parameters"), CutChoice::ByParameters);
  EXPECT_TRUE(CutChoice(automatic).is_automatic());
  EXPECT_THAT(CutChoice("3,6").first_layers(), ElementsAre(3, 6));
  EXPECT_EQ(CutChoice::before({3, 6}), CutChoice("3,6"));
  EXPECT_EQ(CutChoice::before({}), CutChoice::Uniform) << "a single stage";
  EXPECT_THROW(static_cast<void>(CutChoice::before({6, 3})), Error);
  EXPECT_THROW(CutChoice{CutChoice::Explicit}, InvariantViolation);
}

TEST(ScheduleChoice, TellsAFileFromAName) {
  EXPECT_EQ(ScheduleChoice(), ScheduleChoice("1f1b"));
  EXPECT_EQ(ScheduleChoice("zb-v").kind(), ScheduleChoice::Named);
  EXPECT_EQ(ScheduleChoice("some/own.csv").kind(), ScheduleChoice::File);
  EXPECT_EQ(ScheduleChoice("auto"), ScheduleChoice(automatic));
}

TEST(CountChoices, KnowWhetherTheyAreGiven) {
  EXPECT_EQ(Microbatches(8), Microbatches("8"));
  EXPECT_EQ(Microbatches("8").count(), 8);
  EXPECT_TRUE(Microbatches("auto").is_automatic());
  EXPECT_THROW(static_cast<void>(Microbatches(automatic).count()), InvariantViolation);
  EXPECT_TRUE(Ranks().are_the_schedules());
  EXPECT_EQ(Ranks(), Ranks("0"));
  EXPECT_EQ(Ranks(3).count(), 3);
  EXPECT_FALSE(Ranks(automatic).are_the_schedules());
  EXPECT_THROW(static_cast<void>(Ranks(automatic).count()), InvariantViolation);
}

TEST(Recompute, RangesAreInOrderWithGapsBetween) {
  EXPECT_THAT(Recompute("7,1-4").ranges(), ElementsAre(LayerRange{1, 4}, LayerRange{7, 7}));
  EXPECT_EQ(Recompute("1-2,3-4,2"), Recompute("1-4"));
  EXPECT_EQ(Recompute("5-9,0-20"), Recompute("0-20"));
  EXPECT_EQ(Recompute::of({{3, 3}, {1, 2}}), Recompute("1-3"));
  EXPECT_EQ(Recompute::of({false, true, true, false, true}), Recompute("1-2,4"));
  EXPECT_EQ(Recompute::of(std::vector<bool>{false, false}), Recompute::None);
  EXPECT_THROW(Recompute{Recompute::Layers}, InvariantViolation);
}

TEST(Recompute, SaysItOfEachLayer) {
  EXPECT_THAT(recomputed_layers("none", 3), testing::IsEmpty());
  EXPECT_THAT(recomputed_layers("full", 3), ElementsAre(true, true, true));
  EXPECT_THAT(recomputed_layers("0,2", 4), ElementsAre(true, false, true, false));
  EXPECT_THAT(
      [] { static_cast<void>(recomputed_layers("1-4", 4)); },
      ThrowsMessage<Error>(HasSubstr("`recompute` is \"1-4\"; expected none, full, selected, auto, or layers from 0 "
                                     "to 3, such as 1-4,7")));
  EXPECT_THROW(static_cast<void>(recomputed_layers(Recompute::Selected, 4)), InvariantViolation);
  EXPECT_THROW(static_cast<void>(recomputed_layers(automatic, 4)), InvariantViolation);
}

TEST(Kinds, TheirWordsAreReadBack) {
  expect_round_trips<ModelKind>({"gpt", "mlp", "convnet", "own"});
  expect_round_trips<OptimizerKind>({"adamw", "sgd"});
  expect_round_trips<Precision>({"fp32", "bf16", "fp16"});
  expect_round_trips<BoundaryDtype>({"same", "bf16"});
  expect_round_trips<DataKind>({"text", "tokens16", "tokens32", "images"});
  expect_round_trips<std::optional<DataKind>>({"auto", "text", "images"});
}

TEST(Kinds, AnotherWordIsRefusedWithTheNearest) {
  expect_refused<ModelKind>({"lstm", "", "GPT2"}, "expected one of gpt, mlp, convnet; change `some_setting`");
  expect_refused<OptimizerKind>({"adam"},
                                "`some_setting` is \"adam\"; expected one of adamw, sgd; change `some_setting`; "
                                "did you mean 'adamw'?");
  expect_refused<std::optional<DataKind>>({"txt", "own", ""}, "expected one of auto, text, tokens16, tokens32, images");
}

TEST(Sizes, TheirTextIsReadBackToTheByte) {
  expect_round_trips<Bytes>({"12GiB", "4MiB", "500MB", "2GB", "3KB", "7B", "1048577B"});
  expect_round_trips<std::optional<Bytes>>({"", "4MiB"});
  EXPECT_EQ(setting_text(read<Bytes>("1.5 KiB")), "1536B");
  expect_refused<Bytes>({"", "4", "much", "-1KB", "0B"}, "`some_setting` is \"");
  expect_refused<std::optional<Bytes>>({" ", "4"}, "a number with its unit");
}

}  // namespace
}  // namespace penstock::choices_test
