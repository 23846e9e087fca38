// What the ranks have done, brought together where rank 0 lives: timelines on one clock, stages, links.
#pragma once

#include <vector>

#include "penstock/base/types.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/timeline/timeline.h"

#include "pipeline/link_account.h"
#include "pipeline/rank_team.h"

namespace penstock {

class Telemetry {
 public:
  // Compares the clocks of the ranks. `team` must outlive this.
  explicit Telemetry(RankTeam& team);

  // On a rank's thread, after its step: tells rank 0 what it did, if that lives in another process. Does not wait.
  void send(RankId rank, const WorkerStep& step);
  // On a rank's thread, at any time after that: rank 0 takes what the ranks of other processes did into `by_rank`,
  // which is by rank and has those of this process already.
  void receive(RankId rank, std::vector<WorkerStep>& by_rank);
  // The step's timeline, from `start` on; rank 0's process adds up its links. Takes the events out of `by_rank`.
  [[nodiscard]] Timeline timeline(std::vector<WorkerStep>& by_rank, Milliseconds start);

  // Each rank begins to count anew.
  void begin_accounting();
  // By stage and then by rank. Rank 0's process knows all, the others their own.
  [[nodiscard]] std::vector<StageReport> stages();
  // To be asked of rank 0's process.
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
