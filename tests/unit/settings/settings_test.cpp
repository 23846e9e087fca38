#include "penstock/settings/settings.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::filesystem::path toml(const std::string& content) {
  const auto file = std::filesystem::path(testing::TempDir()) / "penstock_settings_test.toml";
  std::ofstream(file) << content;
  return file;
}

TEST(Settings, ComeBackFromTheirTomlEqual) {
  TrainSettings settings;
  settings.data = {"a b", "quote \" and \\ backslash"};
  settings.learning_rate = 0.1 + 0.2;
  settings.epsilon = 1e-12;
  settings.clip = 3;
  settings.tied_head = true;
  settings.seed = 12345678901;
  settings.devices = {"cpu", "cpu"};
  TrainSettings read;
  apply_toml(read, toml(to_toml(settings)));
  EXPECT_EQ(read, settings);
}

TEST(Settings, AFileChangesOnlyWhatItNames) {
  TrainSettings settings;
  settings.layers = 3;
  apply_toml(settings, toml("width = 64\ndata = \"one\"\ndropout = 0\n"));
  EXPECT_EQ(settings.layers, 3);
  EXPECT_EQ(settings.width, 64);
  EXPECT_EQ(settings.data, std::vector<std::string>{"one"});
}

TEST(Settings, RefusalsNameLineKeyAndRemedy) {
  TrainSettings settings;
  const auto apply = [&](const std::string& content) {
    return [&settings, content] { apply_toml(settings, toml(content)); };
  };
  EXPECT_THAT(apply("\nbtach = 3"),
              ThrowsMessage<Error>(AllOf(HasSubstr("line 2"), HasSubstr("did you mean \"batch\""))));
  EXPECT_THAT(apply("batch = 3.5"), ThrowsMessage<Error>(AllOf(HasSubstr("batch"), HasSubstr("a whole number"))));
  EXPECT_THAT(apply("batch = \"3\""), ThrowsMessage<Error>(HasSubstr("a whole number")));
  EXPECT_THAT(apply("stages = 99999999999"), ThrowsMessage<Error>(HasSubstr("stages")));
  EXPECT_THAT(apply("data = [1]"), ThrowsMessage<Error>(HasSubstr("a list of texts")));
  EXPECT_THAT(apply("batch = "), ThrowsMessage<Error>(HasSubstr("is not TOML")));
}

TEST(Settings, EverySettingOutOfRangeIsRefused) {
  const auto refused = [](auto change) {
    TrainSettings settings;
    settings.data = {"x"};
    settings.out = "y";
    check_settings(settings);
    change(settings);
    EXPECT_THROW(check_settings(settings), Error);
  };
  refused([](TrainSettings& s) { s.batch = 0; });
  refused([](TrainSettings& s) { s.microbatches = 33; });
  refused([](TrainSettings& s) { s.heads = 3; });
  refused([](TrainSettings& s) { s.held_out = 1; });
  refused([](TrainSettings& s) { s.learning_rate = -1; });
  refused([](TrainSettings& s) { s.clip = std::numeric_limits<double>::quiet_NaN(); });
  refused([](TrainSettings& s) { s.epsilon = 0; });
  refused([](TrainSettings& s) { s.epsilon = std::numeric_limits<double>::infinity(); });
  refused([](TrainSettings& s) { s.final_learning_rate = std::numeric_limits<double>::infinity(); });
  refused([](TrainSettings& s) { s.batch = std::numeric_limits<std::int64_t>::max(); });
  refused([](TrainSettings& s) { s.layers = 100'001; });
  refused([](TrainSettings& s) { s.threads_per_rank = 100'000; });
  refused([](TrainSettings& s) { s.seed = std::numeric_limits<std::uint64_t>::max(); });
  refused([](TrainSettings& s) { s.optimizer = "adam"; });
  refused([](TrainSettings& s) { s.data.clear(); });
  refused([](TrainSettings& s) { s.out.clear(); });
  refused([](TrainSettings& s) { s.replicas = 0; });
  refused([](TrainSettings& s) { s.replicas = 5; });
  refused([](TrainSettings& s) { s.zero = 2; });
  refused([](TrainSettings& s) { s.gradient_bucket = ""; });
}

}  // namespace
}  // namespace penstock
