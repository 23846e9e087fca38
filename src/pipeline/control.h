// What processes ask of each other beside the numbers: to stop, to wait for what is still written, and texts.
#pragma once

#include <string>
#include <vector>

#include "pipeline/rank_team.h"

namespace penstock {

// What a process says with a step, or all of them together.
struct ControlWord {
  int stop_signal = 0;  // 1 to 31: asks all to end after this step; 0: goes on
  bool saving = false;  // still writes a checkpoint

  friend bool operator==(const ControlWord&, const ControlWord&) = default;
};

// The lowest signal that any asks with, and whether any still writes.
[[nodiscard]] ControlWord all_of(const std::vector<ControlWord>& words);

// The first ranks of the processes talk to each other on their threads; with one process there is nothing to be said.
class Control {
 public:
  // `team` must outlive this.
  explicit Control(RankTeam& team) : team_(team) {}

  // The two halves of an agreement in a step, both on the rank's thread; on others than the first rank of a process
  // they do nothing. The first half does not wait. Throws Aborted.
  void announce(RankId rank, const ControlWord& own);
  // `own` becomes what all processes announced together.
  void agree(RankId rank, ControlWord& own);

  // Every process gives a text and gets those of all, by process.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& text);

 private:
  RankTeam& team_;
};

}  // namespace penstock
