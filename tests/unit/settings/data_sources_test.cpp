#include "penstock/settings/data_sources.h"

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "penstock/base/error.h"

namespace penstock::data_sources_test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(DataSources, WeightsAreTheNumbersBehindTheLastColon) {
  EXPECT_EQ(data_sources({"a.bin:0.7", "b.bin:0.3"}), (std::vector<DataSource>{{"a.bin", 7}, {"b.bin", 3}}));
  EXPECT_EQ(data_sources({"books/:3", "c:\\d.txt:1.5"}), (std::vector<DataSource>{{"books/", 2}, {"c:\\d.txt", 1}}));
  EXPECT_EQ(data_sources({"a.bin:1000", "b.bin:0.000001"}),
            (std::vector<DataSource>{{"a.bin", 1'000'000'000}, {"b.bin", 1}}));
  EXPECT_EQ(data_sources({"a.bin", "b:c.bin"}), (std::vector<DataSource>{{"a.bin"}, {"b:c.bin"}}));
  EXPECT_TRUE(data_sources({}).empty());
}

TEST(DataSources, AFileOfTheWholeNameIsThatFile) {
  const auto file =
      std::filesystem::path(testing::TempDir()) / ("penstock_source_" + std::to_string(::getpid()) + ":2");
  std::ofstream(file) << "text";
  EXPECT_EQ(data_sources({file.string()}), (std::vector<DataSource>{{file.string()}}));
  std::filesystem::remove(file);
}

TEST(DataSources, RefusesWeightsForSomeAndNumbersThatAreNone) {
  EXPECT_THAT([] { static_cast<void>(data_sources({"a.bin:1", "b.bin"})); },
              ThrowsMessage<Error>(HasSubstr("\"b.bin\" without a weight")));
  for (const char* weight : {"0", "-1", "0.0000001", "1.0000005", "1e300", "2000000"})
    EXPECT_THAT([&] { static_cast<void>(data_sources({std::string("a.bin:") + weight, "b.bin:1"})); },
                ThrowsMessage<Error>(HasSubstr("weight")))
        << weight;
  EXPECT_THAT([] { static_cast<void>(data_sources({"a.bin:1000000", "b.bin:0.000001"})); },
              ThrowsMessage<Error>(HasSubstr("weights of `data`")));
}

}  // namespace
}  // namespace penstock::data_sources_test
