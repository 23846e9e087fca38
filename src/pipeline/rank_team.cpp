#include "pipeline/rank_team.h"

#include <fmt/format.h>
#include <utility>

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include "penstock/base/error.h"
#include "penstock/transport/c10d.h"

namespace penstock {
namespace {

// By rank, for those of this process.
std::vector<std::unique_ptr<DeviceLane>> make_lanes(const PipelinePlan& plan, RankId first, std::size_t own) {
  std::vector<std::unique_ptr<DeviceLane>> lanes(static_cast<std::size_t>(plan.training->ranks()));
  for (std::size_t rank = first.index(); rank < first.index() + own; ++rank)
    lanes[rank] = std::make_unique<DeviceLane>(device_of(plan, RankId{static_cast<std::int32_t>(rank)}));
  return lanes;
}

std::vector<DeviceLane*> views_of(const std::vector<std::unique_ptr<DeviceLane>>& lanes) {
  std::vector<DeviceLane*> views;
  views.reserve(lanes.size());
  for (const auto& lane : lanes) views.push_back(lane.get());
  return views;
}

std::vector<std::unique_ptr<Transport>> make_ends(const PipelinePlan& plan, ProcessGroup* group) {
  const int ranks = plan.training->ranks();
  if (group == nullptr) {
    auto ends = make_inproc_transport(ranks, {spin_us_for(ranks)});
    return plan.settings.links ? plan.settings.links(std::move(ends)) : std::move(ends);
  }
  if (group->ranks() != ranks)
    throw bad_input(fmt::format("a schedule of {} for processes that share {}", counted(ranks, "rank"), group->ranks()),
                    "the same number", "give the process group the schedule's ranks");
  return group->take_ends();
}

std::vector<RankId> leaders_of(const ProcessGroup* group) {
  if (group == nullptr) return {RankId{0}};
  std::vector<RankId> leaders;
  leaders.reserve(static_cast<std::size_t>(group->processes()));
  for (int process = 0; process < group->processes(); ++process)
    leaders.push_back(ranks_of_process(process, group->processes(), group->ranks()).first);
  return leaders;
}

}  // namespace

RankTeam::RankTeam(const PipelinePlan& plan, ProcessGroup* group)
    : plan_(plan),
      ends_(make_ends(plan_, group)),
      first_(ends_.front()->rank()),
      own_(ends_.size()),
      workers_(own_),
      lanes_(make_lanes(plan_, first_, own_)),
      transport_(ordered_by_events(std::move(ends_), views_of(lanes_))),
      leaders_(leaders_of(group)),
      crew_(first_, static_cast<int>(own_), [this](const std::string& reason) { transport_.front()->abort(reason); }) {
  try {
    run([this](RankId rank) {
      at::set_num_threads(plan_.settings.threads_per_rank);
      workers_[local(rank)] = std::make_unique<Worker>(plan_, transport(rank), clock_);
    });
    refuse_shared();
    run([this](RankId rank) { worker(rank).meet(); });
  } catch (...) {
    take_down();
    throw;
  }
}

RankTeam::~RankTeam() { take_down(); }

// A worker counts its thread's memory: it is taken down where it was built.
void RankTeam::take_down() {
  try {
    crew_.wait();
  } catch (...) {
    crew_.forget_failure();  // whoever waited for it has been told
  }
  crew_.submit([this](RankId rank) { workers_[local(rank)].reset(); });
  crew_.wait();
}

// While no rank is at work, and on a thread whose memory nobody counts.
void RankTeam::refuse_shared() {
  std::vector<PlacedLayer> layers;
  for (const auto& worker : workers_) {
    const std::vector<PlacedLayer> placed = worker->layers();
    layers.insert(layers.end(), placed.begin(), placed.end());
  }
  try {
    refuse_shared_memory(layers);
    if (processes() > 1) refuse_shared_with_others(plan_.network, layers);
    count_versions_apart(layers);
  } catch (const std::exception& error) {
    transport_.front()->abort(error.what());
    throw;
  }
}

bool RankTeam::shares_device(RankId rank) const {
  const at::Device device = device_of(plan_, rank);
  if (device.is_cpu()) return false;
  for (int process = 0; process < processes(); ++process) {
    const auto [first, end] = ranks_of_process(process, processes(), ranks());
    if (rank < first || rank >= end) continue;
    for (RankId other = first; other < end; ++other.value)
      if (other != rank && device_of(plan_, other) == device) return true;
  }
  return false;
}

void RankTeam::submit(std::function<void(RankId)> work, Then then, std::string where) {
  if (stopped_)
    throw run_failed("a pipeline that has failed before", "a new one", "make a new one and load a checkpoint");
  // Shared by the ranks, since an event is not copied.
  auto before = std::make_shared<const std::vector<c10::Event>>(marks_of_caller(plan_.settings.devices));
  crew_.submit([this, before = std::move(before), work = std::move(work), then, where = std::move(where)](RankId rank) {
    lanes_[rank.index()]->enter(*before);
    try {
      work(rank);
    } catch (const Aborted& aborted) {
      // Nobody will say more about this failure than what waits for it; within an action the executor has said it.
      if (!aborted.peer_is_lost()) throw;
      throw Aborted(fmt::format("rank {}, {}: waits for the other ranks: {}", rank.value, where, aborted.what()));
    }
    if (then == Then::WaitForDevice) lanes_[rank.index()]->wait();
  });
}

void RankTeam::wait(const std::function<bool()>& is_done) {
  try {
    crew_.wait(is_done);
  } catch (const c10::Error& error) {
    // Outside of an action, which has its own words: building layers, moving weights, the update.
    stopped_ = true;
    const std::string reason = error.what_without_backtrace();
    throw run_failed(reason.substr(0, reason.find('\n')), "layers that libtorch can build and update",
                     "where memory ran out, lower `width`, `context` or `batch`");
  } catch (...) {
    stopped_ = true;
    throw;
  }
}

void RankTeam::run(const std::function<void(RankId)>& work) {
  submit(work);
  wait([] { return false; });
}

}  // namespace penstock
