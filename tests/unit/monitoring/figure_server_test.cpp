// What Prometheus is told; tests/dist/monitoring_test.py asks a run, and reads with Prometheus's own parser.
#include "penstock/monitoring/figure_server.h"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

namespace penstock::figure_server_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

TEST(ListenAddress, IsLoopbackUnlessOneIsNamed) {
  EXPECT_EQ(parse_listen_address("9464"), (ListenAddress{"127.0.0.1", 9464}));
  EXPECT_EQ(parse_listen_address("0.0.0.0:9464"), (ListenAddress{"0.0.0.0", 9464}));
  EXPECT_EQ(parse_listen_address("[::1]:80"), (ListenAddress{"::1", 80}));
  for (const char* wrong : {"", "port", "0", "65536", ":80", "80x", "a:b"})
    EXPECT_THAT([&] { static_cast<void>(parse_listen_address(wrong)); },
                ThrowsMessage<Error>(HasSubstr("`prometheus`")))
        << wrong;
}

TEST(PrometheusText, HasAHeadForEachNameAndALabelForEachRank) {
  EXPECT_EQ(to_prometheus_text({{"loss", "training_loss", "mean", 2.5},
                                {"update", "steps", "updates", 3, {}, true},
                                {"memory", "peak_memory_bytes", "most", 10, 0},
                                {"memory", "peak_memory_bytes", "most", NAN, 1}}),
            "# HELP penstock_training_loss mean\n# TYPE penstock_training_loss gauge\npenstock_training_loss 2.5\n"
            "# HELP penstock_steps_total updates\n# TYPE penstock_steps_total counter\npenstock_steps_total 3\n"
            "# HELP penstock_peak_memory_bytes most\n# TYPE penstock_peak_memory_bytes gauge\n"
            "penstock_peak_memory_bytes{rank=\"0\"} 10\npenstock_peak_memory_bytes{rank=\"1\"} NaN\n");
}

TEST(FigureServer, APortThatIsTakenIsOneLine) {
  const FigureServer first({"127.0.0.1", 0});
  EXPECT_GT(first.port(), 0);
  EXPECT_THAT([&] { const FigureServer second({"127.0.0.1", first.port()}); },
              ThrowsMessage<Error>(
                  AllOf(HasSubstr("`prometheus` cannot listen"), HasSubstr("in use"), Not(HasSubstr("MASTER_PORT")))));
}

}  // namespace
}  // namespace penstock::figure_server_test
