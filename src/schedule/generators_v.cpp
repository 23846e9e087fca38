#include <algorithm>
#include <array>

#include "penstock/base/index.h"
#include "penstock/schedule/generators.h"

#include "schedule/counting_row.h"
#include "schedule/generator_base.h"

namespace penstock {
namespace {

// Group 0 is the rank's stage on the way down the V, group 1 the one on the way up.
void add_zb_v_row(CountingRow row, int ranks, int rank, int microbatches) {
  const auto backward = [&row](int group) {
    row.input_backward(group);
    row.weight_backward(group);
  };
  for (int i = 0; i < 2 * (ranks - rank) - 1; ++i) row.forward(0);
  for (int i = 0; i < rank; ++i) {
    row.forward(1);
    row.forward(0);
  }
  for (int i = rank; i < ranks; ++i) {
    row.forward(1);
    backward(1);
  }
  while (row.forwards(1) < microbatches) {
    if (row.forwards(0) < microbatches) row.forward(0);
    backward(0);
    row.forward(1);
    backward(1);
  }
  // The weight gradients that were put off fill the end, where nothing else is left to do.
  for (int i = 0; i < rank; ++i) {
    row.input_backward(0);
    row.input_backward(1);
  }
  for (int i = rank; i < ranks; ++i) {
    row.input_backward(0);
    row.weight_backward(0);
  }
  while (row.weights(1) < microbatches) row.weight_backward(1);
  while (row.weights(0) < microbatches) row.weight_backward(0);
}

// One microbatch on its way through the V: when it reaches each of a rank's two stages, forward and backward, in steps.
// All microbatches follow the same block, `interval` steps apart. A step moves down the ranks every `down` steps and up
// every `up`; the waits before the turns keep the passes of different microbatches out of each other's steps.
struct Block {
  static constexpr int interval = 6;
  int down;
  int up;
  std::array<int, 3> waits;
};

struct TimedAction {
  std::int64_t time;
  Action action;
};

std::vector<TimedAction> block_row(const Block& block, int ranks, int rank) {
  const int from_turn = ranks - 1 - rank;
  const std::int64_t turn = std::int64_t{block.down} * (ranks - 1) + 1 + block.waits[0];
  const std::int64_t back = turn + std::int64_t{block.up} * (ranks - 1) + 1 + block.waits[1];
  const std::int64_t back_turn = back + std::int64_t{block.down} * (ranks - 1) + 1 + block.waits[2];
  const StageId first{rank};
  const StageId second{2 * ranks - 1 - rank};
  std::vector<TimedAction> row{
      {std::int64_t{block.down} * rank, {ActionKind::Forward, first, {}}},
      {turn + std::int64_t{block.up} * from_turn, {ActionKind::Forward, second, {}}},
      {back + std::int64_t{block.down} * rank, {ActionKind::InputBackward, second, {}}},
      {back_turn + std::int64_t{block.up} * from_turn, {ActionKind::InputBackward, first, {}}},
  };
  std::array<bool, Block::interval> taken{};
  for (const TimedAction& pass : row) taken.at(as_index(pass.time % Block::interval)) = true;
  for (const std::size_t of : {2U, 3U}) {
    std::int64_t time = row[of].time + 1;
    while (taken.at(as_index(time % Block::interval))) ++time;
    taken.at(as_index(time % Block::interval)) = true;
    row.push_back({time, {ActionKind::WeightBackward, row[of].action.stage, {}}});
  }
  return row;
}

Schedule repeated(const Block& block, int ranks, int microbatches) {
  Schedule schedule = empty_v_schedule(ranks, microbatches);
  for (int rank = 0; rank < ranks; ++rank) {
    const auto passes = block_row(block, ranks, rank);
    std::vector<TimedAction> timed;
    timed.reserve(passes.size() * as_size(microbatches));
    for (int microbatch = 0; microbatch < microbatches; ++microbatch) {
      for (TimedAction pass : passes) {
        pass.time += std::int64_t{Block::interval} * microbatch;
        pass.action.microbatch = {microbatch};
        timed.push_back(pass);
      }
    }
    std::sort(timed.begin(), timed.end(), [](const TimedAction& a, const TimedAction& b) { return a.time < b.time; });
    for (const TimedAction& pass : timed) entry(schedule.actions, rank).push_back(pass.action);
  }
  return schedule;
}

}  // namespace

Schedule zb_v_schedule(int ranks, int microbatches) {
  check_sizes(ranks, 2, microbatches);
  Schedule schedule = empty_v_schedule(ranks, std::max(microbatches, 2 * ranks - 1));
  for (int rank = 0; rank < ranks; ++rank)
    add_zb_v_row(CountingRow(entry(schedule.actions, rank), {rank}, {2 * ranks - 1 - rank}), ranks, rank,
                 schedule.microbatches);
  keep_microbatches(schedule, microbatches);
  return schedule;
}

Schedule v_half_schedule(int ranks, int microbatches) {
  // Found by trying all waits below 6: the smallest peak, and then the smallest bubble, for 2 to 8 and for 16 ranks.
  const bool even = ranks % 2 == 0;
  return repeated({1, 2, even ? std::array{3, 0, 4} : std::array{1, 0, 0}}, ranks, microbatches);
}

Schedule v_min_schedule(int ranks, int microbatches) {
  // Without the wait the way down of the forward and that of the backward meet in one step where 3 divides p.
  return repeated({1, 1, {0, ranks % 3 == 0 ? 2 : 0, 0}}, ranks, microbatches);
}

}  // namespace penstock
