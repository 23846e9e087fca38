#include "penstock/timeline/timeline.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

Event event(ActionKind kind, int stage, int microbatch, double start, double end) {
  return {{kind, StageId{stage}, MicrobatchId{microbatch}}, {start}, {end}};
}

// Two stages, two microbatches, GPipe at F = 1 and B = 2; rank 1 also waits in a receive, which is no work.
Timeline gpipe_on_two() {
  using enum ActionKind;
  return {{{event(Forward, 0, 0, 0, 1), event(Forward, 0, 1, 1, 2), event(Backward, 0, 0, 5, 7),
            event(Backward, 0, 1, 7, 9)},
           {event(ReceiveForward, 1, 0, 0, 1), event(Forward, 1, 0, 1, 2), event(Forward, 1, 1, 2, 3),
            event(Backward, 1, 0, 3, 5), event(Backward, 1, 1, 5, 7)}}};
}

TEST(Timeline, WithoutCommunicationOnlyComputeActionsAndMemoryAreLeft) {
  Timeline timeline = gpipe_on_two();
  timeline.memory = {{}, {{{1}, {64}}}};
  const Timeline computed = compute_actions(timeline);
  EXPECT_EQ(computed.ranks[0], timeline.ranks[0]);
  ASSERT_EQ(computed.ranks[1].size(), 4);
  EXPECT_EQ(computed.ranks[1][0], timeline.ranks[1][1]);
  EXPECT_EQ(computed.memory, timeline.memory);
}

TEST(Timeline, MovesItsZeroToTheFirstStartOfAnyRank) {
  using enum ActionKind;
  const Timeline timeline{{{event(Forward, 0, 0, 7, 8)}, {event(Forward, 1, 0, 5, 7)}}, {{{{4}, {64}}}}};
  EXPECT_EQ(from_first_start(timeline),
            (Timeline{{{event(Forward, 0, 0, 2, 3)}, {event(Forward, 1, 0, 0, 2)}}, {{{{-1}, {64}}}}}));
  EXPECT_EQ(from_first_start(from_first_start(timeline)), from_first_start(timeline));
  EXPECT_EQ(from_first_start(Timeline{{{}, {}}}), (Timeline{{{}, {}}}));
}

TEST(Timeline, BothBubblesOfAHandDrawnStep) {
  const Timeline timeline = gpipe_on_two();
  EXPECT_DOUBLE_EQ(makespan(timeline).count, 9);
  EXPECT_DOUBLE_EQ(span(timeline, RankId{0}).count, 9);
  EXPECT_DOUBLE_EQ(span(timeline, RankId{1}).count, 6);
  EXPECT_DOUBLE_EQ(busy_time(timeline, RankId{1}).count, 6);
  EXPECT_DOUBLE_EQ(utilisation(timeline), 12.0 / 18);
  EXPECT_DOUBLE_EQ(bubble_makespan(timeline), 6.0 / 18);
  EXPECT_DOUBLE_EQ(bubble_span(timeline), 6.0 / 18);
}

TEST(Timeline, RanksThatStartLateHaveAShorterSpanThanTheMakespan) {
  using enum ActionKind;
  const Timeline timeline{{{event(Forward, 0, 0, 0, 4)}, {event(Forward, 1, 0, 4, 8)}}};
  EXPECT_DOUBLE_EQ(bubble_makespan(timeline), 0.5);
  EXPECT_DOUBLE_EQ(bubble_span(timeline), 0);
}

TEST(Timeline, AnEmptyTimelineHasNoBubbleAndNoTime) {
  for (const Timeline& timeline : {Timeline{}, Timeline{{{}, {}}}}) {
    EXPECT_EQ(makespan(timeline).count, 0);
    EXPECT_EQ(utilisation(timeline), 0);
    EXPECT_EQ(bubble_makespan(timeline), 0);
    EXPECT_EQ(bubble_span(timeline), 0);
  }
}

TEST(Timeline, ActivationsLiveFromForwardToTheLastPartOfTheBackward) {
  using enum ActionKind;
  EXPECT_EQ(peak_activations(gpipe_on_two(), RankId{0}), 2);
  const Timeline split{{{event(Forward, 0, 0, 0, 1), event(InputBackward, 0, 0, 1, 2), event(Forward, 0, 1, 2, 3),
                         event(WeightBackward, 0, 0, 3, 4), event(Forward, 0, 2, 4, 5), event(Backward, 0, 1, 5, 6),
                         event(Backward, 0, 2, 6, 7)}}};
  EXPECT_EQ(peak_activations(split, RankId{0}), 2);
}

TEST(Timeline, AForwardWithoutABackwardHoldsItsActivationsOnlyWhileItRuns) {
  using enum ActionKind;
  const Timeline timeline{{{event(Forward, 0, 0, 0, 1), event(Forward, 0, 1, 1, 2), event(Forward, 0, 2, 2, 3)}}};
  EXPECT_EQ(peak_activations(timeline, RankId{0}), 1);
}

TEST(Timeline, PeakBytesIsTheLargestSampleAndZeroWhereNobodyCounted) {
  Timeline timeline{{{}, {}, {}}};
  EXPECT_EQ(peak_bytes(timeline, RankId{2}).count, 0);
  timeline.memory = {{{{0}, {5}}, {{1}, {9}}, {{2}, {1}}}, {}};
  EXPECT_EQ(peak_bytes(timeline, RankId{0}).count, 9);
  EXPECT_EQ(peak_bytes(timeline, RankId{1}).count, 0);
  EXPECT_EQ(peak_bytes(timeline, RankId{2}).count, 0);
}

}  // namespace
}  // namespace penstock
