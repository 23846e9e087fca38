#include "penstock/schedule/generators.h"

#include <algorithm>
#include <functional>
#include <gtest/gtest.h>

#include "penstock/schedule/verify.h"

#include "unit/schedule/player.h"
#include "unit/schedule/refused.h"

namespace penstock {
namespace {

struct Sizes {
  int p;
  int m;
  int v;
};

std::vector<Sizes> sizes_of(const ScheduleFamily& family) {
  std::vector<Sizes> all;
  for (const int p : {2, 3, 4, 8, 16})
    for (const int m : {p, 2 * p, 4 * p + 1})
      for (const int v : family.stages_per_rank_varies ? std::vector{2, 4} : std::vector{family.stages_per_rank})
        if (p % family.ranks_multiple == 0) all.push_back({p, m, v});
  return all;
}

// Calls `expect` for every size at which the formulas are to hold. Unit times: F, I and W 1, B 2, an overlapped pair 3.
void for_sizes(const char* name,
               const std::function<void(const Sizes& size, const Played& played, int least, int most)>& expect) {
  const auto families = schedule_families();
  const auto family = std::find_if(families.begin(), families.end(), [&](const auto& f) { return f.name == name; });
  ASSERT_NE(family, families.end());
  for (const Sizes& size : sizes_of(*family)) {
    SCOPED_TRACE(testing::Message() << name << " p=" << size.p << " m=" << size.m << " v=" << size.v);
    const VerifiedSchedule schedule = verify(make_schedule(name, size.p, size.m, size.v));
    const auto peaks = peak_activations(schedule.get());
    expect(size, play(schedule.get()), *std::min_element(peaks.begin(), peaks.end()),
           *std::max_element(peaks.begin(), peaks.end()));
  }
}

TEST(Generators, ClassicShapes) {
  EXPECT_EQ(to_csv(naive_schedule(2, 2)), "0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1\n");
  EXPECT_EQ(to_csv(gpipe_schedule(2, 2)), "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n");
  EXPECT_EQ(to_csv(one_f_one_b_schedule(3, 2)), "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n2F0,2B0,2F1,2B1\n");
  EXPECT_EQ(to_csv(forward_only_schedule(2, 2)), "0F0,0F1\n1F0,1F1\n");
}

TEST(Generators, ZeroBubbleShapes) {
  EXPECT_EQ(to_csv(zb_h1_schedule(2, 3)), "0F0,0F1,0I0,0W0,0F2,0I1,0W1,0I2,0W2\n1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1W2\n");
  EXPECT_EQ(to_csv(zb_v_schedule(1, 2)), "0F0,1F0,1I0,1W0,0F1,0I0,0W0,1F1,1I1,1W1,0I1,0W1\n");
}

TEST(Generators, DualPipeOverlapsForwardsWithBackwards) {
  EXPECT_EQ(to_csv(dualpipe_schedule(2, 4)),
            "0F0,1F1,0F2,1B1,(1F3;0B0)OVERLAP_F_B,1B3,0I2,0W2\n0F1,1F0,0F3,1B0,(1F2;0B1)OVERLAP_F_B,1B2,0I3,0W3\n");
  const Schedule schedule = dualpipe_schedule(4, 8);
  EXPECT_EQ(schedule.placement.holders[1], (std::vector{RankId{1}, RankId{2}}));
}

// What is only checked is refused exactly where it could not be made: else a run would begin that has no schedule.
TEST(Generators, ASizeThatIsCheckedCanBeMade) {
  for (const ScheduleFamily& family : schedule_families())
    for (const int ranks : {-1, 0, 1, 2, 3, 4})
      for (const int microbatches : {0, 1, 2, 5})
        for (const int stages_per_rank : {0, 1, 2, 3, 4}) {
          SCOPED_TRACE(testing::Message()
                       << family.name << ", " << ranks << ", " << microbatches << ", " << stages_per_rank);
          try {
            check_generated(family.name, ranks, microbatches, stages_per_rank);
          } catch (const Error&) {
            EXPECT_THROW(static_cast<void>(make_schedule(family.name, ranks, microbatches, stages_per_rank)), Error);
            continue;
          }
          const VerifiedSchedule made = verify(make_schedule(family.name, ranks, microbatches, stages_per_rank));
          EXPECT_EQ(made->forward_only, family.forward_only);
        }
  EXPECT_THROW(check_generated("zigzag", 2, 4), Error);
}

// Every family for every small size, m below p and no multiple of it among them: correct, lowerable, and nothing of it
// lost in the text.
TEST(Generators, AreCorrectForAllSmallSizes) {
  for (const ScheduleFamily& family : schedule_families()) {
    for (int p = family.ranks_multiple; p <= 6; p += family.ranks_multiple)
      for (int m = 1; m <= 2 * p + 3; ++m)
        for (const int v : family.stages_per_rank_varies ? std::vector{2, 4, 6} : std::vector{family.stages_per_rank}) {
          SCOPED_TRACE(testing::Message() << family.name << " p=" << p << " m=" << m << " v=" << v);
          const VerifiedSchedule schedule = verify(make_schedule(family.name, p, m, v));
          EXPECT_EQ(schedule->ranks(), p);
          EXPECT_EQ(schedule->stages, p * v);
          EXPECT_EQ(schedule->microbatches, m);
          const bool two = std::any_of(schedule->placement.holders.begin(), schedule->placement.holders.end(),
                                       [](const auto& holders) { return holders.size() == 2; });
          EXPECT_EQ(two, family.bidirectional);
          const Schedule read = parse_schedule(to_csv(schedule.get()));
          EXPECT_EQ(read.actions, schedule->actions);
          if (m > 1) {  // One microbatch shows one of two holders.
            EXPECT_EQ(read, schedule.get());
          }
          EXPECT_NO_THROW(static_cast<void>(verify(lower(schedule).get())));
        }
  }
}

TEST(Generators, NaiveUsesOnePthOfItsRanks) {
  for_sizes("naive", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.makespan, s.p * played.busy[0]);
    EXPECT_EQ(most, 1);
  });
}

TEST(Generators, GPipeAnd1F1B) {
  for_sizes("gpipe", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), 3 * (s.p - 1));
    EXPECT_EQ(most, s.m);
  });
  for_sizes("1f1b", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), 3 * (s.p - 1));
    // The share of the published formula, (p − 1) / (m + p − 1).
    EXPECT_EQ((played.makespan - played.busy[0]) * (s.m + s.p - 1), played.makespan * (s.p - 1));
    EXPECT_EQ(most, std::min(s.p, s.m));
  });
}

TEST(Generators, ForwardOnlyHoldsNothing) {
  for_sizes("forward-only", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.makespan, s.m + s.p - 1);
    EXPECT_EQ(most, 0);
  });
}

// The published formulas assume that p divides m. Where it does not, the bubble stays; the groups grow to ⌈m / ⌊m/p⌋⌉
// microbatches, and the peak by so many less p on all but one of the rank's stages.
TEST(Generators, InterleavedOnes) {
  const auto growth = [](const Sizes& s) { return (s.v - 1) * (s.m % s.p == 0 ? 0 : 1); };
  for_sizes("interleaved-1f1b", [&](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), 3 * (s.p - 1));
    EXPECT_EQ(most, std::min(s.p * s.v + s.p - 1 + growth(s), s.m * s.v));
  });
  for_sizes("interleaved-zb", [&](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), s.p - 1);
    EXPECT_EQ(most, std::min(s.p * s.v + growth(s), s.m * s.v));
  });
  for_sizes("looped-bfs", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), 3 * (s.p - 1));
    EXPECT_EQ(most, s.m * s.v);
  });
}

// ZB-H2 and ZB-V need 2p − 1 microbatches for their formula; with m = p they wait p − 1 and 2(p − 1).
TEST(Generators, ZeroBubbleOnes) {
  for_sizes("zb-h1", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), s.p - 1);
    EXPECT_EQ(most, std::min(s.p, s.m));
  });
  for_sizes("zb-h2", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), s.m >= 2 * s.p - 1 ? 0 : s.p - 1);
    EXPECT_EQ(most, std::min(2 * s.p - 1, s.m));
  });
  for_sizes("zb-v", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting(), s.m >= 2 * s.p - 1 ? 0 : 2 * (s.p - 1));
    EXPECT_EQ(most, std::min(2 * s.p, 2 * s.m));
  });
}

// The published rates are approximations, p / 2m of the busy time 6m, and 2p / 3m: waits of 3p and 4p. V-Half is off by
// (p − 8) / 2 for an even p, from 3 below on 2 ranks to 4 above on 16, and by 3 below on 3 ranks; V-Min is 5 below, or
// 3 where 3 divides p. The peaks are the published ones; with m = p = 2 V-Half waits one more and holds one less.
TEST(Generators, VHalfAndVMin) {
  for_sizes("v-half", [](const Sizes& s, const Played& played, int, int most) {
    const int smallest = s.m == 2 ? 1 : 0;
    EXPECT_EQ(2 * (played.most_waiting() - 3 * s.p), s.p % 2 == 0 ? s.p - 8 + 2 * smallest : -6);
    EXPECT_EQ(most, 2 * ((s.p + 2) / 2) - smallest);
  });
  for_sizes("v-min", [](const Sizes& s, const Played& played, int, int most) {
    EXPECT_EQ(played.most_waiting() - 4 * s.p, s.p % 3 == 0 ? -3 : -5);
    EXPECT_EQ(most, 2 * ((s.p + 4) / 3));
  });
}

// F&B takes 3, B 2 and W 1, so the formulas give p − 2 and 2(p − 1). They are for an even m ≥ 2p; the microbatch that
// an odd m leaves out costs DualPipe 3 more, and m = p costs both half as much again (DualPipe: plus p / 2 − 1).
TEST(Generators, DualPipes) {
  for_sizes("dualpipe", [](const Sizes& s, const Played& played, int, int most) {
    const int published = s.p - 2;
    EXPECT_EQ(played.most_waiting(), published + (s.m == s.p ? s.p / 2 - 1 : s.m % 2 == 0 ? 0 : 3));
    EXPECT_EQ(most, std::min(s.p + 1, s.m));
  });
  for_sizes("dualpipev", [](const Sizes& s, const Played& played, int, int most) {
    const int published = 2 * (s.p - 1);
    EXPECT_EQ(played.most_waiting(), published + (s.m == s.p ? s.p - 1 : 0));
    EXPECT_EQ(most, std::min(2 * s.p + 1, 2 * s.m));
  });
}

// The published share is for a backward as long as a forward: p − 2 steps in 2m + p − 2. It holds for every even m; the
// odd microbatch at the end costs another p. In unit times, with a backward twice as long, a rank waits p − 2 for every
// p microbatches and p − 2 more, which is a share of 0.35 for many ranks where the published one falls with m; the odd
// microbatch costs 2p − 2 (on two ranks 3). The peak is p on the middle ranks and p / 2 + 1 on the outer ones.
TEST(Generators, Chimera) {
  for_sizes("chimera", [](const Sizes& s, const Played& played, int least, int most) {
    const Played equal = play(chimera_schedule(s.p, s.m), {.whole_backward = 1});
    EXPECT_EQ(equal.busy[0], 2 * s.m);
    EXPECT_EQ(equal.makespan - equal.busy[0], s.m % 2 == 0 ? s.p - 2 : 2 * (s.p - 1));
    EXPECT_EQ(least, s.p / 2 + 1);
    EXPECT_EQ(most, s.p);
    const int odd = s.m % 2 == 0 ? 0 : s.p == 2 ? 3 : 2 * s.p - 2;
    EXPECT_EQ(played.most_waiting(), (s.m / s.p + 1) * (s.p - 2) + odd);
  });
}

// The published share, (2p − 2) / (3pw + p − 1), is for m = p, where this one is from 0.009 (p = 4, two waves) to 0.092
// (p = 16, one wave) below it; with more microbatches it is always below. The peak is 1F1B's for m = p, and a quarter
// more above that: p and ⌈p / 4⌉ microbatches, at least one, of the first wave.
TEST(Generators, Hanayo) {
  for_sizes("hanayo", [](const Sizes& s, const Played& played, int, int most) {
    const double share = static_cast<double>(played.makespan - played.busy[0]) / played.makespan;
    const int waves = s.v / 2;
    const double published = (2.0 * s.p - 2) / (3 * s.p * waves + s.p - 1);
    EXPECT_LT(share, published - (s.m == s.p ? 0.009 : 0));
    if (s.m == s.p) {
      EXPECT_GT(share, published - 0.092);
    }
    const int beyond = s.m == s.p ? 0 : std::max(1, s.p / 4);
    EXPECT_GE(most, s.p * s.v);
    EXPECT_LE(most, s.p * s.v + 2 * beyond);
  });
}

TEST(Generators, RefuseWhatDoesNotExist) {
  EXPECT_EQ(refused([] { return gpipe_schedule(0, 4); }),
            "a schedule of 0 ranks, 1 stage a rank and 4 microbatches; expected at least 1 of each; raise the smallest "
            "number");
  EXPECT_NE(refused([] { return make_schedule("2f2b", 2, 4); }).find("no schedule '2f2b'; expected one of naive, "),
            std::string::npos);
  EXPECT_EQ(refused([] { return make_schedule("dualpipe", 3, 4); }).rfind("dualpipe on 3 ranks; expected an even", 0),
            0U);
  EXPECT_EQ(refused([] { return make_schedule("hanayo", 2, 4, 3); }).rfind("hanayo with 3 stages a rank", 0), 0U);
  EXPECT_EQ(refused([] { return make_schedule("1f1b", 2, 4, 2); }).rfind("1f1b with 2 stages a rank; expected 1", 0),
            0U);
  for (const ScheduleFamily& family : schedule_families()) {
    for (const auto& [p, m] : {std::pair{0, 1}, {1, 0}, {-2, 4}, {2, -1}, {2'000'000'000, 1}, {2, 2'147'483'647}})
      EXPECT_NE(refused([&, p = p, m = m] { return make_schedule(family.name, p, m); }).find("a schedule of"),
                std::string::npos)
          << family.name;
  }
}

}  // namespace
}  // namespace penstock
