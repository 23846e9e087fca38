#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

#include "mistakes.h"
#include "output_file.h"

namespace penstock::app {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

/// What the line of a program with two commands is refused with; empty where it is understood.
std::string refusal_of(const std::string& line) {
  CLI::App app("a program", "penstock");
  app.require_subcommand(1);
  int stages = 1;
  std::string colour;
  CLI::App* train = app.add_subcommand("train", "");
  train->add_option("--stages", stages, "");
  train->add_option("--colour,--color", colour, "")->check(one_of({"auto", "always", "never"}), "");
  CLI::App* schedule = app.add_subcommand("schedule", "");
  schedule->require_subcommand(1);
  schedule->add_subcommand("show", "");
  try {
    app.parse(line);
    return "";
  } catch (const CLI::ParseError& error) {
    return explain(app, error);
  }
}

TEST(Mistakes, AWordWhereACommandShouldStand) {
  EXPECT_EQ(refusal_of("trian --stages 3"),
            "'trian' after `penstock`; expected one of train, schedule; did you mean 'train'?; `penstock --help` says "
            "what each does");
  EXPECT_EQ(refusal_of(""),
            "nothing after `penstock`; expected one of train, schedule; `penstock --help` says what each does");
  EXPECT_THAT(refusal_of("schedule shwo"), AllOf(HasSubstr("after `penstock schedule`"), HasSubstr("mean 'show'?")));
  EXPECT_THAT(refusal_of("trombone"), Not(HasSubstr("did you mean")));
}

TEST(Mistakes, AnOptionThatThereIsNot) {
  const std::string told =
      "unknown option '--stage' of `penstock train`; expected one that `penstock train --help` "
      "lists; did you mean '--stages'?";
  EXPECT_EQ(refusal_of("train --stage 3"), told);
  EXPECT_EQ(refusal_of("train --stage=3"), told);
  EXPECT_THAT(refusal_of("--hlep"), HasSubstr("did you mean '--help'?"));
  EXPECT_THAT(refusal_of("train more"), HasSubstr("'more' is one word too many"));
  EXPECT_THAT(refusal_of("train --" + std::string(100'000, 'x')), testing::SizeIs(testing::Lt(300U)));
}

TEST(Mistakes, AValueThatThereIsNot) {
  EXPECT_EQ(refusal_of("train --colour never"), "");
  EXPECT_THAT(refusal_of("train --colour nevre"),
              AllOf(HasSubstr("'nevre' is none of auto, always, never"), HasSubstr("did you mean 'never'?")));
}

std::string refusal_of_output(const std::string& file, const std::string& asked = "") {
  try {
    static_cast<void>(format_of_output(file, asked, {{"text", ".txt"}, {"svg", ".svg"}, {"html", ".html"}}));
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
}

TEST(OutputFile, ItsNameSaysTheFormat) {
  const auto format = [](const std::string& file, const std::string& asked) {
    return format_of_output(file, asked, {{"text", ".txt"}, {"svg", ".svg"}, {"html", ".html"}});
  };
  EXPECT_EQ(format("", ""), "text");
  EXPECT_EQ(format("", "svg"), "svg");
  EXPECT_EQ(format("drawn", ""), "text");
  EXPECT_EQ(format("drawn.svg", ""), "svg");
  EXPECT_EQ(format("drawn.SVG", ""), "svg");
  EXPECT_EQ(format("drawn.htm", ""), "html");
  EXPECT_EQ(format("/dev/null", "svg"), "svg");
  EXPECT_EQ(format("drawn.of-today", "svg"), "svg");
}

TEST(OutputFile, RefusesAnotherFormatThanItsNameSays) {
  EXPECT_THAT(refusal_of_output("drawn.svg", "text"), AllOf(HasSubstr("--format text"), HasSubstr(".txt")));
  EXPECT_THAT(refusal_of_output("drawn.png", "svg"), HasSubstr("a name that ends in .svg"));
  EXPECT_THAT(refusal_of_output("drawn.png"), HasSubstr("a name that ends in .txt, .svg, .html"));
  EXPECT_THAT(refusal_of_output(testing::TempDir()), HasSubstr("is a folder"));
  const OutputFormat csv{"a schedule as CSV", ".csv"};
  for (const char* good : {"", "best.csv", "best", "best.v2"}) EXPECT_NO_THROW(check_output_is(csv, good)) << good;
  EXPECT_THROW(check_output_is(csv, "best.svg"), Error);
  try {
    check_output_is(csv, "best.svg", "--sweep");
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("--sweep best.svg"), HasSubstr("CSV"), EndsWith("change the name")));
  }
}

}  // namespace
}  // namespace penstock::app
