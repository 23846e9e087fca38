/// \file
/// A rank's actions by kind and stage alone: the microbatches count themselves.
#pragma once

#include <array>

#include "penstock/base/index.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// Appends to one row of a schedule with two groups of work on it, 0 and 1: two stages, or two directions. F, I (or B)
/// and W of a group each take the next microbatch of their own.
class CountingRow {
 public:
  struct Group {
    std::int32_t stage = 0;
    std::int32_t first_microbatch = 0;
    std::int32_t microbatch_step = 1;
  };

  CountingRow(std::vector<Action>& row, Group first, Group second) : row_(row), groups_{first, second} {}

  void forward(int group) { add(ActionKind::Forward, group, forwards_.at(index(group))++); }
  void input_backward(int group) { add(ActionKind::InputBackward, group, inputs_.at(index(group))++); }
  void weight_backward(int group) { add(ActionKind::WeightBackward, group, weights_.at(index(group))++); }
  void backward(int group) {
    add(ActionKind::Backward, group, inputs_.at(index(group))++);
    ++weights_.at(index(group));
  }
  /// The last two actions run together.
  void overlap() { row_.at(row_.size() - 2).overlaps_next = true; }

  [[nodiscard]] int forwards(int group) const { return forwards_.at(index(group)); }
  [[nodiscard]] int inputs(int group) const { return inputs_.at(index(group)); }
  [[nodiscard]] int weights(int group) const { return weights_.at(index(group)); }

 private:
  static std::size_t index(int group) { return as_index(group); }
  void add(ActionKind kind, int group, int count) {
    const Group& g = groups_.at(index(group));
    row_.push_back({kind, {g.stage}, {g.first_microbatch + count * g.microbatch_step}});
  }

  std::vector<Action>& row_;
  std::array<Group, 2> groups_;
  std::array<int, 2> forwards_{};
  std::array<int, 2> inputs_{};
  std::array<int, 2> weights_{};
};

}  // namespace penstock
