#include "shell_pages.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "help.h"

namespace penstock::app {
namespace {

using testing::HasSubstr;
using testing::Not;

// A program with options of each kind, a command within another, and one that is not for people.
class ShellPages : public testing::Test {
 protected:
  ShellPages() {
    program.set_version_flag("-V,--version", "0.1.0");
    CLI::App* train = program.add_subcommand("train", "Trains a network");
    train->add_option("--data", data, "files or [folders]: what's read")->group("The data");
    train->add_option("-o,--out", data, "folder");
    train->add_flag("--resume", resume, "go on");
    CLI::App* schedule = program.add_subcommand("schedule", "Schedules as data: list, show");
    schedule->add_subcommand("list", "All families");
    CLI::App* show = schedule->add_subcommand("show", "Prints one");
    show->add_option("-o", data, "file");
    show->add_option("schedule", data, "a schedule's name")->required();
    show->add_option("more", words, "any words");
    show->add_flag("--sure,!--no-sure", resume, "on or off");
    show->add_option("--sizes", sizes, "some numbers")->capture_default_str();
    program.add_subcommand("hidden", "")->group("");
    train->add_option("--hidden-option", data, "")->group("");
  }

  CLI::App program{"penstock: trains networks.", "penstock"};
  std::string data = "text.txt";
  std::vector<std::string> words;
  std::vector<int> sizes{1, 2, 4};
  bool resume = false;
};

// What bash offers for the last of these words.
std::string offered(const CLI::App& program, const std::string& words) {
  const auto script = std::filesystem::path(testing::TempDir()) / "penstock_completion.bash";
  write_file_atomically(script, bash_completion(program));
  const std::string command = "bash -c '. " + script.string() + "; compopt() { echo -n \"files \"; }; COMP_WORDS=(" +
                              words + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _penstock; echo \"${COMPREPLY[*]}\"'";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string text;
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe.get()) != nullptr) text += buffer.data();
  std::filesystem::remove(script);
  return text;
}

TEST_F(ShellPages, BashOffersCommandsOptionsAndFiles) {
  EXPECT_EQ(offered(program, "penstock \"\""), "train schedule -h --help -V --version\n");
  EXPECT_EQ(offered(program, "penstock tr"), "train\n");
  EXPECT_EQ(offered(program, "penstock hid"), "\n");
  EXPECT_EQ(offered(program, "penstock schedule \"\""), "list show -h --help\n");
  EXPECT_EQ(offered(program, "penstock schedule show -"), "-h --help -o --sure --no-sure --sizes\n");
  EXPECT_EQ(offered(program, "penstock train --hid"), "\n");
  EXPECT_EQ(offered(program, "penstock train --re"), "--resume\n");
  EXPECT_EQ(offered(program, "penstock train --data x --re"), "--resume\n");
  EXPECT_EQ(offered(program, "penstock train --data \"\""), "files \n");
  EXPECT_EQ(offered(program, "penstock train -o \"\""), "files \n");
  EXPECT_EQ(offered(program, "penstock train te"), "files \n") << "no command and no option: a file";
}

TEST_F(ShellPages, ZshAndFishKnowWhatOptionsMean) {
  const std::string zsh = zsh_completion(program);
  EXPECT_THAT(zsh, HasSubstr("'--data[files or \\[folders\\]: what'\\''s read]:value:_files'"));
  EXPECT_THAT(zsh, HasSubstr("'--resume[go on]' \\"));
  EXPECT_THAT(zsh, HasSubstr("'schedule:Schedules as data\\: list, show'"));
  EXPECT_THAT(zsh, HasSubstr("show) _penstock_schedule_show ;;"));
  EXPECT_THAT(zsh, Not(HasSubstr("hidden")));
  const std::string fish = fish_completion(program);
  EXPECT_THAT(fish, HasSubstr("complete -c penstock -f -n '__fish_use_subcommand' -a train -d 'Trains a network'"));
  EXPECT_THAT(fish,
              HasSubstr("complete -c penstock -n '__fish_seen_subcommand_from train' -s o -l out -r -d 'folder'"));
  EXPECT_THAT(fish, HasSubstr("__fish_seen_subcommand_from schedule; and __fish_seen_subcommand_from show"));
  EXPECT_THAT(fish,
              HasSubstr("-n '__fish_seen_subcommand_from schedule; and not __fish_seen_subcommand_from list show' "
                        "-a list -d"));
  EXPECT_THAT(fish, Not(HasSubstr("hidden")));
}

TEST_F(ShellPages, EachCommandHasAManualPage) {
  std::vector<std::string> names;
  for (const ManualPage& page : manual_pages(program, "0.1.0")) {
    names.push_back(page.name);
    EXPECT_THAT(page.text, HasSubstr(".SH EXIT STATUS")) << page.name;
  }
  EXPECT_THAT(names, testing::ElementsAre("penstock", "penstock-train", "penstock-schedule", "penstock-schedule-list",
                                          "penstock-schedule-show"));
  const std::string train = manual_pages(program, "0.1.0")[1].text;
  EXPECT_THAT(train, HasSubstr(".TH PENSTOCK\\-TRAIN 1 \"\" \"penstock 0.1.0\""));
  EXPECT_THAT(train, HasSubstr("\\fB\\-o\\fR, \\fB\\-\\-out\\fR \\fIvalue\\fR\nfolder.\n"));
  EXPECT_THAT(train, HasSubstr(".SS The data\n"));
  EXPECT_THAT(train, Not(HasSubstr("hidden")));
  EXPECT_THAT(manual_pages(program, "0.1.0").front().text, HasSubstr(".SH NAME\npenstock \\- trains networks.\n"));
}

TEST_F(ShellPages, APageNamesArgumentsAndShowsExamples) {
  const std::string show = manual_pages(program, "0.1.0").back().text;
  EXPECT_THAT(show, HasSubstr("[\\fIoptions\\fR] \\fIschedule\\fR [\\fImore\\fR ...]\n"));
  EXPECT_THAT(show, HasSubstr(".SH ARGUMENTS\n.TP\n\\fIschedule\\fR\na schedule\\(aqs name.\n"));
  EXPECT_THAT(show, HasSubstr("\\fB\\-\\-sure\\fR, \\fB\\-\\-no\\-sure\\fR\n"));
  EXPECT_THAT(show, HasSubstr("\nsome numbers. Default: 1,2,4.\n"));
  EXPECT_THAT(show, HasSubstr(".SH OPTIONS\n.TP\n"));
  EXPECT_THAT(show, HasSubstr(".SH EXAMPLES\n"));
  EXPECT_THAT(show, HasSubstr("\npenstock schedule show "));
}

TEST(Help, NamesOptionsAsTheyAreTypedAndShowsExamples) {
  CLI::App program{"penstock: trains networks.", "penstock"};
  show_typed_names(program);
  bool sure = false;
  std::string file;
  CLI::App* train = program.add_subcommand("train", "Trains a network");
  train->add_flag("--sure{true},!--no-sure", sure, "on or off")->default_str("auto");
  train->add_option("-o,--out", file, "folder");
  std::vector<int> sizes{1, 2, 4};
  train->add_option("--sizes", sizes, "some numbers")->capture_default_str();
  show_examples(program);
  const std::string help = train->help("penstock");
  EXPECT_THAT(help, HasSubstr("\n  --sure, --no-sure (auto)  "));
  EXPECT_THAT(help, HasSubstr("\n  -o, --out TEXT  "));
  EXPECT_THAT(help, HasSubstr("\n  --sizes INT=1,2,4 ...  "));
  EXPECT_THAT(help, Not(HasSubstr("{")));
  const std::vector<Example> examples = examples_of("train");
  ASSERT_GE(examples.size(), 2U);
  EXPECT_EQ(introduction({"Is it free?", ""}), "Is it free?");
  EXPECT_EQ(introduction({"Draw one", ""}), "Draw one:");
  for (const Example& example : examples) EXPECT_THAT(help, HasSubstr("\n      " + std::string(example.line) + "\n"));
}

TEST_F(ShellPages, AreWrittenWhereAnInstallHasThem) {
  const auto prefix = std::filesystem::path(testing::TempDir()) / "penstock_shell_pages";
  write_shell_pages(program, "0.1.0", prefix);
  for (const char* file : {"share/bash-completion/completions/penstock", "share/zsh/site-functions/_penstock",
                           "share/fish/vendor_completions.d/penstock.fish", "share/man/man1/penstock-train.1"})
    EXPECT_FALSE(read_file(prefix / file).empty()) << file;
  std::filesystem::remove_all(prefix);
}

}  // namespace
}  // namespace penstock::app
