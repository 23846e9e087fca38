#include <algorithm>
#include <gtest/gtest.h>

#include "penstock/timeline/timeline.h"

namespace penstock {
namespace {

TEST(LinkUse, OfManyLinksTheTableShowsThoseThatWereWaitedFor) {
  std::vector<LinkUse> links;
  links.reserve(6);
  for (int link = 0; link < 6; ++link)
    links.push_back({link, link + 1, true, {1024}, 2, {link == 4 ? 500.0 : 1.0}, {4}, {1}});
  const std::string all = link_table(links);
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 7);
  const std::string few = link_table(links, 3);
  EXPECT_EQ(std::count(few.begin(), few.end(), '\n'), 4);
  EXPECT_NE(few.find("4 to 5"), std::string::npos) << few;
  EXPECT_NE(few.find("4 others"), std::string::npos) << few;
  EXPECT_NE(few.find("4 KiB"), std::string::npos) << few;
  EXPECT_EQ(link_table({}), "");
}

}  // namespace
}  // namespace penstock
