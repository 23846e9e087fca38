#include "penstock/base/error.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Error, CountsThingsAsMessagesSayThem) {
  EXPECT_EQ(counted(0, "rank"), "0 ranks");
  EXPECT_EQ(counted(1, "microbatch"), "1 microbatch");
  EXPECT_EQ(counted(2, "microbatch"), "2 microbatches");
  EXPECT_EQ(counted(3, "process"), "3 processes");
  EXPECT_EQ(counted(-1, "stage"), "-1 stages");
}

TEST(Error, IsOneLineWhateverANameHolds) {
  const std::string name("a\nb\x1b[31m\0c", 10);
  EXPECT_STREQ(bad_input(name, "a name", "rename it").what(), "a b [31m c; expected a name; rename it");
}

TEST(Error, ShortensWithoutCuttingACharacter) {
  EXPECT_EQ(shortened("zb-v", 4), "zb-v");
  EXPECT_EQ(shortened("zb-v-half", 4), "zb-v…");
  EXPECT_EQ(shortened("größer", 3), "gr…");
  EXPECT_EQ(shortened("größer", 4), "grö…");
}

TEST(Fields, AreNamedAsTheCallerCallsThem) {
  EXPECT_EQ(field("eval-every"), "`eval_every`");
  const auto option = [](const std::string& name) { return name == "batch" ? "--batch" : std::string(); };
  EXPECT_EQ(with_fields_named("lower `microbatches` or raise `batch`", option),
            "lower `microbatches` or raise --batch");
  EXPECT_EQ(with_fields_named("`batch` is 0", option), "--batch is 0");
  EXPECT_EQ(with_fields_named("a file o`k of `batch`", option), "a file o`k of --batch");
  EXPECT_EQ(with_fields_named("`penstock train` and ``batch``", option), "`penstock train` and `--batch`");
  EXPECT_EQ(with_fields_named("one ` alone", option), "one ` alone");
  EXPECT_EQ(with_fields_named("", option), "");
}

}  // namespace
}  // namespace penstock
