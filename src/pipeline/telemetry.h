// What the ranks have done, brought together where rank 0 lives: timelines on one clock, stages, links.
#pragma once

#include <vector>

#include "penstock/base/units.h"
#include "penstock/pipeline/link_use.h"
#include "penstock/pipeline/pipeline.h"

#include "pipeline/link_account.h"
#include "pipeline/rank_team.h"

namespace penstock {

class Telemetry {
 public:
  // Compares the clocks of the ranks. `team` must outlive this.
  explicit Telemetry(RankTeam& team);

  // On a rank's thread, after its step: rank 0 gets what the ranks of other processes did. `of_all` is by rank, and has
  // those of this process already.
  void collect(RankId rank, std::vector<WorkerStep>& of_all);
  // The step's timeline, from `start` on; rank 0's process adds up its links. Takes the events out of `of_all`.
  [[nodiscard]] Timeline timeline(std::vector<WorkerStep>& of_all, Milliseconds start);

  // Each rank begins to count anew.
  void begin_accounting();
  // By stage and then by rank. Rank 0's process knows all, the others their own.
  [[nodiscard]] std::vector<StageReport> stages();
  // Of rank 0's process.
  [[nodiscard]] std::vector<LinkUse> links() const { return links_.uses(); }
  // By rank of this process.
  [[nodiscard]] std::vector<Bytes> peak_memory();

 private:
  void compare_clocks(RankId rank);

  RankTeam& team_;
  std::vector<Milliseconds>
      clock_offsets_;  // by rank: how far its clock is ahead of rank 0's; kept by rank 0's process
  LinkAccount links_;  // kept there too
};

}  // namespace penstock
