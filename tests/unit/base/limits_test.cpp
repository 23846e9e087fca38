// What is asked before a run begins, and before a parser sees a text.
#include "penstock/base/limits.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/text_limits.h"

namespace penstock {
namespace {

using testing::HasSubstr;

template <class Call>
std::string refusal(Call&& call, ErrorKind kind) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

// In a process of its own, as limits cannot be raised again. What it exits with.
int in_child(const std::function<int()>& part) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(part());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Limits, TooFewDescriptorsAreNamed) {
  EXPECT_EQ(in_child([] {
              const rlimit few = {30, 30};
              ::setrlimit(RLIMIT_NOFILE, &few);
              try {
                need_descriptors(2, "2 processes");
                need_descriptors(100, "8 processes");
              } catch (const Error& error) {
                return std::string(error.what()).starts_with("8 processes with a limit of 30 open files") ? 0 : 1;
              }
              return 2;
            }),
            0);
}

TEST(Limits, ASoftLimitIsRaised) {
  EXPECT_EQ(in_child([] {
              const rlimit few = {30, 500};
              ::setrlimit(RLIMIT_NOFILE, &few);
              need_descriptors(100, "8 processes");
              rlimit now{};
              ::getrlimit(RLIMIT_NOFILE, &now);
              return now.rlim_cur >= 100 ? 0 : 1;
            }),
            0);
}

TEST(Limits, ASmallStackIsNamed) {
  EXPECT_EQ(in_child([] {
              const rlimit little = {std::size_t{64} << 10U, std::size_t{64} << 10U};
              ::setrlimit(RLIMIT_STACK, &little);
              try {
                need_stack("2 stages");
              } catch (const Error& error) {
                return std::string(error.what()).starts_with("2 stages with a stack of 64 KiB") ? 0 : 1;
              }
              return 2;
            }),
            0);
}

TEST(Limits, TooFewThreadsAreNamed) {
#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
  GTEST_SKIP() << "the sanitizer's shadow memory does not fit into the address space that this test leaves";
#endif
  EXPECT_EQ(in_child([] {
              // Of address space, as the number of threads does not hold for root.
              const rlimit little = {std::size_t{1} << 30, std::size_t{1} << 30};
              ::setrlimit(RLIMIT_AS, &little);
              try {
                need_threads(2, "2 ranks");
                need_threads(2000, "2000 ranks");
              } catch (const Error& error) {
                return std::string(error.what()).find("expected room for 2000") == std::string::npos ? 1 : 0;
              }
              return 2;
            }),
            0);
}

TEST(TextLimits, KeysOfManyPartsAndValuesWithinValues) {
  std::string parts = "a";
  for (int part = 0; part < 50'000; ++part) parts += ".a";
  const auto toml = [](const std::string& text) { check_toml_limits(text, "run.toml", {}); };
  const auto json = [](const std::string& text) { check_json_limits(text, "cost.json", {}); };
  EXPECT_THAT(refusal([&] { toml("x = 1\n" + parts + " = 1"); }, ErrorKind::BadInput), HasSubstr("run.toml line 2"));
  EXPECT_THAT(refusal([&] { toml("[" + parts + "]"); }, ErrorKind::BadInput), HasSubstr("at most 16 parts"));
  EXPECT_THAT(refusal([&] { toml("a = " + std::string(17, '[')); }, ErrorKind::BadInput), HasSubstr("16 levels"));
  EXPECT_THAT(refusal([&] { json(std::string(17, '[')); }, ErrorKind::BadInput), HasSubstr("16 levels"));
  EXPECT_THAT(refusal([&] { json("[" + std::string(600'000, ',')); }, ErrorKind::BadInput), HasSubstr("500000"));
}

TEST(TextLimits, AGapOfLineEndsEndsSomewhere) {
  const std::string longest = std::string(longest_json_gap, '\n') + std::string(100'000, ' ');
  check_json_limits("{" + longest + "\"a\":\t1}" + longest, "cost.json", {});
  EXPECT_EQ(find_json_gap("{" + longest + "\r"), longest.size() + 1);
  for (const char* letter : {"\n", "\r", "\t"})
    EXPECT_THAT(refusal([&] { check_json_limits("{" + longest + letter, "cost.json", {}); }, ErrorKind::BadInput),
                HasSubstr("cost.json is empty for 10000 line ends"));
}

TEST(TextLimits, QuotesBeforeTheEndOfAStringHideNothingBehindIt) {
  const std::string many(17, '[');
  for (const char* quote : {"\"", "'"})
    for (const int more : {0, 1, 2}) {
      std::string quotes;
      for (int number = 0; number < 3; ++number) quotes += quote;
      std::string end = quotes;
      for (int number = 0; number < more; ++number) end += quote;
      const std::string text = fmt::format("a = [{}b{}, {}", quotes, end, many);
      EXPECT_THAT(refusal([&] { check_toml_limits(text, "run.toml", {}); }, ErrorKind::BadInput), HasSubstr("levels"));
    }
}

TEST(TextLimits, EachPartOfAKeyIsAValue) {
  std::string text;
  for (int key = 0; key < 100; ++key) text += fmt::format("k{}.a.b.c.d.e.f.g.h.i = 1\n", key);
  EXPECT_THAT(refusal([&] { check_toml_limits(text, "run.toml", {.most_values = 900}); }, ErrorKind::BadInput),
              HasSubstr("more values"));
}

TEST(TextLimits, WhatStandsInStringsAndCommentsIsNotCounted) {
  const std::string many = std::string(100, '[') + std::string(100, '.');
  check_toml_limits(
      fmt::format("a = \"{0}\\\"{0}\" # {0}\nb = '{0}'\nc = \"\"\"{0}\n\"{0}\"\"\"\nd = [1.5, 2.5]", many), "run.toml",
      {});
  check_json_limits(fmt::format(R"({{"a": "{0}\"{0}"}})", many), "cost.json", {});
}

TEST(IsThere, SaysNoOfWhatCannotBeLookedAt) {
  EXPECT_TRUE(is_there("/"));
  EXPECT_FALSE(is_there(testing::TempDir() + "/nowhere"));
  EXPECT_FALSE(is_there(std::string(100'000, 'a')));
}

TEST(ReadFile, OnlyWhatIsAFileAndNoLongerThanIsRead) {
  EXPECT_THAT(refusal([] { static_cast<void>(read_file("/dev/zero")); }, ErrorKind::BadInput), HasSubstr("no regular"));
  const std::string folder = testing::TempDir();
  EXPECT_THAT(refusal([&] { static_cast<void>(read_file(folder)); }, ErrorKind::BadInput), HasSubstr("no regular"));
  const std::string pipe = folder + "/pipe";
  ::unlink(pipe.c_str());
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(refusal([&] { static_cast<void>(read_file(pipe)); }, ErrorKind::BadInput), HasSubstr("no regular"));
  write_file_atomically(folder + "/ten", "0123456789");
  EXPECT_EQ(read_file(folder + "/ten", 10), "0123456789");
  EXPECT_THAT(refusal([&] { static_cast<void>(read_file(folder + "/ten", 9)); }, ErrorKind::BadInput),
              HasSubstr("is longer than"));
  EXPECT_FALSE(read_file("/proc/self/status").empty()) << "it says that it is empty";
}

}  // namespace
}  // namespace penstock
