#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "help.h"
#include "mistakes.h"
#include "output_file.h"
#include "setting_options.h"

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
  train->add_option("--stages", stages, "")->check(whole_number<int>, "");
  bool timeline = false;
  train->add_flag("--timeline", timeline, "");
  double rate = 0;
  train->add_option("--rate", rate, "");
  train->add_option("--colour,--color", colour, "")->check(one_of({"auto", "always", "never"}), "");
  CLI::App* schedule = app.add_subcommand("schedule", "");
  schedule->require_subcommand(1);
  schedule->add_subcommand("show", "");
  std::string file;
  app.add_subcommand("export", "")->add_option("-o,--output", file, "")->required();
  try {
    app.parse(line);
    return "";
  } catch (const CLI::ParseError& error) {
    return explain(app, error);
  }
}

TEST(Mistakes, AWordWhereACommandShouldStand) {
  EXPECT_EQ(refusal_of("trian --stages 3"),
            "'trian' after `penstock`; expected one of train, schedule, export; did you mean 'train'?; `penstock "
            "--help` says "
            "what each does");
  EXPECT_EQ(refusal_of(""),
            "nothing after `penstock`; expected one of train, schedule, export; `penstock --help` says what each does");
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

TEST(Mistakes, AValueThatAnOptionDoesNotTake) {
  EXPECT_EQ(refusal_of("train --stages x"),
            "--stages: 'x' is not a whole number; expected a value that --stages takes; `penstock train --help` "
            "describes it");
  EXPECT_EQ(refusal_of("train --rate x"),
            "--rate is 'x'; expected a value that it takes; `penstock train --help` describes it");
  EXPECT_EQ(refusal_of("train --timeline=perhaps"),
            "--timeline is 'perhaps'; expected --timeline alone, --timeline=true or --timeline=false; `penstock train "
            "--help` describes it");
  EXPECT_EQ(refusal_of("train --rate"),
            "--rate without its value; expected one after it; `penstock train --help` describes it");
  EXPECT_EQ(refusal_of("export"),
            "no --output; expected one, which `penstock export` cannot do without; `penstock export --help` describes "
            "it");
}

TEST(HelpTopics, AFolderThatCannotBeReadIsRefused) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "help_topics";
  std::filesystem::create_directories(folder);
  for (const char* name : {"planning.md", "data.md", "picture.svg"}) write_file_atomically(folder / name, "");
  EXPECT_THAT(topics_in(folder), testing::ElementsAre("data", "planning"));
  EXPECT_THAT(topics_in(""), testing::IsEmpty());
  for (const char* none : {"data.md", "nothing"})
    EXPECT_THAT([&] { static_cast<void>(topics_in(folder / none)); },
                testing::ThrowsMessage<Error>(AllOf(HasSubstr("cannot read"), HasSubstr(none))));
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

/// The settings that a line of `penstock train` makes.
TrainSettings settings_of(const std::string& line) {
  CLI::App app("a program", "penstock");
  TrainSettings settings;
  add_setting_options(app, settings, [](SettingGroup, const std::string&) { return true; });
  app.parse(line);
  return settings;
}

TEST(SettingOptions, AreReadAsTheirTypes) {
  const TrainSettings settings = settings_of(
      "--cut 3,6 --schedule zb-v --microbatches auto --ranks 4 --recompute 1-2 --memory-limit 12GiB --gradient-bucket "
      "1KB --precision bf16 --data-kind text --model mlp --devices cpu,cpu --offload --steps 7");
  TrainSettings expected;
  expected.layout.cut = CutChoice::before({3, 6});
  expected.layout.schedule = "zb-v";
  expected.layout.microbatches = automatic;
  expected.layout.ranks = 4;
  expected.layout.recompute = Recompute::of(std::vector<LayerRange>{{1, 2}});
  expected.layout.memory_limit = Bytes{12LL << 30};
  expected.layout.gradient_bucket = {1000};
  expected.layout.devices = {"cpu", "cpu"};
  expected.layout.offload = true;
  expected.training.precision = Precision::BFloat16;
  expected.training.steps = 7;
  expected.data.kind = DataKind::Text;
  expected.model.kind = ModelKind::Mlp;
  EXPECT_EQ(settings, expected);
  EXPECT_EQ(settings_of(""), TrainSettings());
  EXPECT_EQ(settings_of("--cut 3 --cut uniform").layout.cut, CutChoice::Uniform) << "the last one wins";
}

TEST(SettingOptions, AFlagThatMayBeLeftOpenTakesAWordOrNone) {
  const auto chosen = [](const std::string& line) { return settings_of(line).training.post_validation; };
  EXPECT_EQ(chosen(""), std::nullopt);
  for (const char* line : {"--post-validation", "--post-validation --steps 3", "--post-validation=true"})
    EXPECT_EQ(chosen(line), true) << line;
  for (const char* line : {"--no-post-validation", "--post-validation=false --steps 3"})
    EXPECT_EQ(chosen(line), false) << line;
  EXPECT_EQ(chosen("--post-validation --post-validation=auto"), std::nullopt);
}

TEST(SettingOptions, RefuseWhatIsNone) {
  using testing::ThrowsMessage;
  const auto parse = [](const std::string& line) { return [line] { static_cast<void>(settings_of(line)); }; };
  EXPECT_THAT(parse("--post-validation=maybe"),
              ThrowsMessage<Error>(HasSubstr("--post-validation is maybe; expected true, false or auto")));
  EXPECT_THAT(parse("--cut 3,2"), ThrowsMessage<Error>(HasSubstr("the cut \"3,2\" cuts before layer 2")));
  EXPECT_THAT(parse("--model lstm"), ThrowsMessage<Error>(HasSubstr("expected one of gpt, mlp, convnet")));
  EXPECT_THAT(parse("--data-kind txt"), ThrowsMessage<Error>(HasSubstr("`data_kind` is \"txt\"")));
  EXPECT_THAT(parse("--memory-limit 4"), ThrowsMessage<Error>(HasSubstr("`memory_limit` is \"4\"")));
  for (const char* words : {"--microbatches x", "--microbatches 3.5", "--ranks 99999999999"})
    EXPECT_THAT(parse(words), ThrowsMessage<CLI::ParseError>(HasSubstr("whole number")));
}

}  // namespace
}  // namespace penstock::app
