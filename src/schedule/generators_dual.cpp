#include <algorithm>

#include "penstock/base/index.h"
#include "penstock/schedule/generators.h"

#include "schedule/counting_row.h"
#include "schedule/generator_base.h"

namespace penstock {
namespace {

// One rank of two streams of microbatches that meet at the far end of `ranks` ranks: in DualPipe the other direction's,
// in DualPipeV the same ones on their way back. Group 0 is the stream that still has all ranks before it.
// `microbatches` of each stream, at least 2 × ranks − 1; `rank` counts from the near end.
class MeetingRow {
 public:
  MeetingRow(CountingRow row, int ranks, int rank, int microbatches)
      : row_(row), to_meeting_(ranks - 1 - rank), from_start_(rank + 1), main_(microbatches - 2 * ranks + rank + 1) {}

  void fill() {
    warm_up();
    for (int i = 0; i < main_; ++i) {
      // Overlapping the very first pair where the streams meet would hold up the first backward of all.
      forward_with_backward(0, 1, i > 0 || to_meeting_ > 0);
      forward_with_backward(1, 0, true);
    }
    for (int i = 0; i < to_meeting_; ++i) {
      row_.backward(1);
      forward_with_backward(1, 0, true);
    }
    cool_down();
  }

 private:
  void warm_up() {
    for (int i = 0; i < 2 * to_meeting_; ++i) row_.forward(0);
    for (int i = 0; i < from_start_; ++i) {
      row_.forward(0);
      row_.forward(1);
    }
    for (int i = 0; i < to_meeting_; ++i) {
      row_.input_backward(1);
      row_.weight_backward(1);
      row_.forward(1);
    }
  }

  // The second half of the last backwards leaves its weight gradients for the steps in which nothing else is ready.
  void cool_down() {
    const int whole_steps = from_start_ / 2;
    const bool odd = from_start_ % 2 != 0;
    for (int i = 0; i < from_start_; ++i) {
      last_backward(1, i > whole_steps || (i == whole_steps && !odd));
      last_backward(0, i >= whole_steps);
    }
    for (int i = 0; i < to_meeting_; ++i) {
      delayed_weight();
      last_backward(0, true);
    }
    while (!delayed_.empty()) delayed_weight();
  }

  void forward_with_backward(int forward, int backward, bool overlapped) {
    row_.forward(forward);
    row_.backward(backward);
    if (overlapped) row_.overlap();
  }

  void last_backward(int group, bool split) {
    if (!split) return row_.backward(group);
    row_.input_backward(group);
    delayed_.push_back(group);
  }

  void delayed_weight() {
    if (delayed_.empty()) return;
    row_.weight_backward(delayed_.front());
    delayed_.erase(delayed_.begin());
  }

  CountingRow row_;
  int to_meeting_;
  int from_start_;
  int main_;
  std::vector<int> delayed_;
};

}  // namespace

Schedule dualpipe_schedule(int ranks, int microbatches) {
  check_sizes(ranks, 2, microbatches);
  const int each_way = std::max((microbatches + 1) / 2, ranks);
  Schedule schedule = empty_schedule(ranks, 2 * each_way, bidirectional_placement("dualpipe", ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    const int mirror = ranks - 1 - rank;
    const CountingRow::Group down{rank, 0, 2};
    const CountingRow::Group up{mirror, 1, 2};
    auto& row = entry(schedule.actions, rank);
    const CountingRow counting = rank < mirror ? CountingRow(row, down, up) : CountingRow(row, up, down);
    MeetingRow(counting, ranks / 2, std::min(rank, mirror), each_way).fill();
  }
  keep_microbatches(schedule, microbatches);
  return schedule;
}

Schedule dualpipev_schedule(int ranks, int microbatches) {
  check_sizes(ranks, 2, microbatches);
  Schedule schedule = empty_v_schedule(ranks, std::max(microbatches, 2 * ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    const CountingRow row(entry(schedule.actions, rank), {rank}, {2 * ranks - 1 - rank});
    MeetingRow(row, ranks, rank, schedule.microbatches).fill();
  }
  keep_microbatches(schedule, microbatches);
  return schedule;
}

}  // namespace penstock
