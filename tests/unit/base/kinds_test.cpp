#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/base/types.h"

namespace penstock::kinds_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Kinds, EveryWordIsThatOfItsKind) {
  for (const auto& [kind, word, offered] : KindWords<Precision>::all) {
    EXPECT_EQ(kind_named<Precision>(word), kind);
    EXPECT_EQ(word_of(kind), word);
  }
  EXPECT_EQ(kind_named<Precision>("fp64"), std::nullopt);
}

TEST(Kinds, AProgramMayWriteAKindOrItsWord) {
  Worded<OptimizerKind> kind = OptimizerKind::AdamW;
  EXPECT_TRUE(kind == OptimizerKind::AdamW);
  kind = "sgd";
  EXPECT_EQ(kind, Worded(OptimizerKind::Sgd));
  kind = std::string("adamw");
  EXPECT_EQ(static_cast<OptimizerKind>(kind), OptimizerKind::AdamW);
}

TEST(Kinds, AWordThatThereIsNotIsRefusedWithThoseThatThereAre) {
  try {
    const Worded<OptimizerKind> kind = "adamv";
    ADD_FAILURE() << static_cast<int>(static_cast<OptimizerKind>(kind));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("\"adamv\""), HasSubstr("adamw, sgd"), HasSubstr("did you mean 'adamw'?")));
  }
}

}  // namespace
}  // namespace penstock::kinds_test
