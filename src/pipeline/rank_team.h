// The ranks of this process: for each a thread, a worker, a device and an end of the transport.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/exec/device.h"
#include "penstock/transport/transport.h"

#include "pipeline/crew.h"
#include "pipeline/pipeline_plan.h"
#include "pipeline/shared_parameters.h"
#include "pipeline/worker.h"

namespace penstock {

// Belongs to the thread that calls the pipeline; work runs on the threads of the ranks.
class RankTeam {
 public:
  // Starts the threads and builds every rank's layers on its own. `plan` must outlive the team, and so must `group`,
  // the processes that share the pipeline; null: all ranks are threads of this process. Throws Error (BadInput) for
  // another number of ranks than the schedule's and for parameters that share memory; (RunFailed) if there is no room
  // for a thread.
  RankTeam(const PipelinePlan& plan, ProcessGroup* group);
  RankTeam(const RankTeam&) = delete;
  RankTeam& operator=(const RankTeam&) = delete;
  RankTeam(RankTeam&&) = delete;
  RankTeam& operator=(RankTeam&&) = delete;
  ~RankTeam();

  enum class Then : std::uint8_t {
    WaitForDevice,  // what has been enqueued is done when the work is
    GoOn,           // the work waits for what others read of it
  };

  // Has each rank of this process do `work` on its thread, when it has done what it was given before. Returns at once.
  // After a failure the team is stopped for good. `where` names the work where it waits for a process that is lost.
  // Throws Error (RunFailed) if the team is stopped.
  void submit(std::function<void(RankId)> work, Then then = Then::WaitForDevice, std::string where = "outside a step");
  // Waits until all that was submitted is done, or `is_done` holds; see `Crew::wait`. Throws Error, that of the rank
  // that failed first.
  void wait(const std::function<bool()>& is_done);
  // Changes what an `is_done` looks at; from any thread.
  void change(const std::function<void()>& what) { crew_.change(what); }
  // Submits and waits until all is done.
  void run(const std::function<void(RankId)>& work);

  // Whether a wait has thrown: nothing more is begun.
  [[nodiscard]] bool has_failed() const { return stopped_; }

  [[nodiscard]] const PipelinePlan& plan() const { return plan_; }
  [[nodiscard]] const Clock& clock() const { return clock_; }
  [[nodiscard]] int ranks() const { return plan_.training->ranks(); }  // of all processes
  [[nodiscard]] int processes() const { return static_cast<int>(leaders_.size()); }
  // The first rank of each process.
  [[nodiscard]] const std::vector<RankId>& leaders() const { return leaders_; }

  // The ranks of this process.
  [[nodiscard]] RankId first() const { return first_; }
  [[nodiscard]] std::size_t size() const { return own_; }
  [[nodiscard]] bool is_own(RankId rank) const { return rank >= first_ && rank.index() < first_.index() + own_; }
  // The place of a rank of this process among them.
  [[nodiscard]] std::size_t local(RankId rank) const { return rank.index() - first_.index(); }
  [[nodiscard]] Worker& worker(RankId rank) { return *workers_[local(rank)]; }
  [[nodiscard]] Transport& transport(RankId rank) { return *transport_[local(rank)]; }

  // Whether another rank of the same process keeps its tensors on the rank's device, which is not the host: then nobody
  // knows whose tensors are whose.
  [[nodiscard]] bool shares_device(RankId rank) const;

 private:
  void refuse_shared();
  void take_down();

  const PipelinePlan& plan_;
  SteadyClock clock_;
  std::vector<std::unique_ptr<Transport>> ends_;  // only until they are ordered
  RankId first_;
  std::size_t own_;
  std::vector<std::unique_ptr<Worker>> workers_;       // by own rank
  std::vector<std::unique_ptr<DeviceLane>> lanes_;     // by rank; none of other processes'
  std::vector<std::unique_ptr<Transport>> transport_;  // by own rank
  std::vector<RankId> leaders_;
  bool stopped_ = false;
  Crew crew_;  // last: its threads use everything above
};

}  // namespace penstock
