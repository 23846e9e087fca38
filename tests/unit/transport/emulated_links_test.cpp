#include "penstock/transport/emulated_links.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "penstock/base/types.h"

namespace penstock {
namespace {

constexpr MessageKind delayed{3};
constexpr Tag boundary(std::int32_t microbatch) { return {delayed, 1, microbatch}; }
constexpr Tag other_tag{MessageKind{4}, 0, 0};

std::vector<std::unique_ptr<Transport>> slow_ends() {
  return with_emulated_links(
      make_inproc_transport(2),
      [](RankId from, RankId) {
        // Back from rank 1 at once.
        return from == RankId{0} ? EmulatedLink{{20}, 1.0} : EmulatedLink{};
      },
      [](const Tag& tag) { return tag.kind == delayed; });
}

TEST(EmulatedLinks, AMessageComesNoSoonerThanItsLinkBringsIt) {
  const auto ends = slow_ends();
  const SteadyClock clock;
  const Milliseconds start = clock.now();
  // Ten bytes each: the second waits for the link, which the first occupies.
  ends[0]->send({1}, boundary(0), {at::zeros({10}, at::kByte)});
  ends[0]->send({1}, boundary(1), {at::ones({10}, at::kByte)});
  EXPECT_EQ(ends[1]->receive({0}, boundary(1)).front().sum().item<int>(), 10);
  EXPECT_GE((clock.now() - start).count, 20 + 20);
  EXPECT_EQ(ends[1]->receive({0}, boundary(0)).front().sum().item<int>(), 0);
}

TEST(EmulatedLinks, OtherMessagesAndAbortsPass) {
  const auto ends = slow_ends();
  const std::vector<at::Tensor> values{at::ones({1000}, at::kByte)};
  ends[0]->send({1}, other_tag, values);
  EXPECT_EQ(ends[1]->receive({0}, other_tag).size(), 1);
  ends[1]->send({0}, boundary(0), values);
  EXPECT_EQ(ends[0]->receive({1}, boundary(0)).size(), 1);
  ends[1]->abort("enough");
  EXPECT_THROW(static_cast<void>(ends[0]->receive({1}, boundary(1))), Aborted);
}

}  // namespace
}  // namespace penstock
