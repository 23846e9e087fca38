#include "pipeline/telemetry.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <mutex>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/exec/message_kind.h"

#include "pipeline/record_message.h"

namespace penstock {
namespace {

constexpr int action_kinds = static_cast<int>(ActionKind::ReceiveBackward) + 1;

Tag report_of(RankId rank) { return {MessageKind::Report, rank.value, 0}; }

// One event of a rank's step, and what it received and held.
struct EventRecord {
  std::int32_t kind = 0;
  StageId stage;
  MicrobatchId microbatch;
  RankId received_from;
  Milliseconds start;
  Milliseconds end;
  Milliseconds arrived;
  Bytes received;
  Bytes activations;
};

std::vector<EventRecord> records_of(const WorkerStep& step) {
  std::vector<EventRecord> records;
  records.reserve(step.events.size());
  for (std::size_t index = 0; index < step.events.size(); ++index) {
    const auto& [action, start, end] = step.events[index];
    const Receipt& receipt = step.receipts[index];
    records.push_back({static_cast<std::int32_t>(action.kind), action.stage, action.microbatch, receipt.from, start,
                       end, receipt.arrived, receipt.bytes, step.activations[index]});
  }
  return records;
}

// On the reader's clock.
void take_records(const std::vector<EventRecord>& records, Milliseconds clock_is_ahead, WorkerStep& step) {
  for (const EventRecord& record : records) {
    if (record.kind < 0 || record.kind >= action_kinds)
      throw run_failed(fmt::format("a report of the action {}", record.kind), fmt::format("below {}", action_kinds),
                       "start every process of the run with the same penstock");
    step.events.push_back({{static_cast<ActionKind>(record.kind), record.stage, record.microbatch},
                           record.start - clock_is_ahead,
                           record.end - clock_is_ahead});
    step.activations.push_back(record.activations);
    step.receipts.push_back({record.received_from, record.received, record.arrived - clock_is_ahead});
  }
}

}  // namespace

Telemetry::Telemetry(RankTeam& team)
    : team_(team),
      clock_offsets_(static_cast<std::size_t>(team.ranks())),
      links_(team.plan().training->stages, team.plan().training->microbatches, team.leaders()) {
  if (team.processes() > 1) team_.run([this](RankId rank) { compare_clocks(rank); });
}

// Rank 0 asks every rank of another process for its time. Where the answer's error is larger than the difference, the
// clocks are the same: that of one machine.
void Telemetry::compare_clocks(RankId rank) {
  constexpr int rounds = 5;
  Transport& transport = team_.transport(rank);
  if (rank != RankId{0}) {
    if (team_.is_own(RankId{0})) return;
    for (int round = 0; round < rounds; ++round) {
      static_cast<void>(receive_records<Milliseconds>(transport, RankId{0}, report_of(RankId{0})));
      send_records<Milliseconds>(transport, RankId{0}, report_of(rank), {team_.clock().now()});
    }
    return;
  }
  for (RankId other{0}; other.value < team_.ranks(); ++other.value) {
    if (team_.is_own(other)) continue;
    Milliseconds least{std::numeric_limits<double>::infinity()};
    for (int round = 0; round < rounds; ++round) {
      const Milliseconds asked = team_.clock().now();
      send_records<Milliseconds>(transport, other, report_of(rank), {asked});
      const Milliseconds there = receive_records<Milliseconds>(transport, other, report_of(other)).at(0);
      const Milliseconds answered = team_.clock().now();
      const Milliseconds took = answered - asked;
      if (took >= least) continue;
      least = took;
      const Milliseconds ahead{there.count - (asked.count + answered.count) / 2};
      clock_offsets_[other.index()] = std::abs(ahead.count) > took.count ? ahead : Milliseconds{};
    }
  }
}

void Telemetry::send(RankId rank, const WorkerStep& step) {
  if (!team_.is_own(RankId{0})) send_records(team_.transport(rank), RankId{0}, report_of(rank), records_of(step));
}

void Telemetry::receive(RankId rank, std::vector<WorkerStep>& by_rank) {
  if (rank != RankId{0}) return;
  for (RankId other{0}; other.value < team_.ranks(); ++other.value)
    if (!team_.is_own(other))
      take_records(receive_records<EventRecord>(team_.transport(rank), other, report_of(other)),
                   clock_offsets_[other.index()], by_rank[other.index()]);
}

Timeline Telemetry::timeline(std::vector<WorkerStep>& by_rank, Milliseconds start) {
  if (team_.is_own(RankId{0})) {
    std::vector<RankTraffic> traffic;
    traffic.reserve(by_rank.size());
    for (const WorkerStep& worker_step : by_rank) traffic.push_back({worker_step.events, worker_step.receipts});
    links_.add(traffic);
  }
  Timeline timeline;
  RankId rank{0};
  for (WorkerStep& worker_step : by_rank) {
    std::vector<MemorySample> memory;
    for (std::size_t index = 0; index < worker_step.events.size(); ++index) {
      Event& event = worker_step.events[index];
      event.start = event.start - start;
      event.end = event.end - start;
      memory.push_back({event.end, worker_step.activations[index]});
    }
    if (team_.shares_device(rank)) memory.clear();
    timeline.ranks.push_back(std::move(worker_step.events));
    timeline.memory.push_back(std::move(memory));
    ++rank.value;
  }
  return timeline;
}

void Telemetry::begin_accounting() {
  links_.reset();
  team_.run([this](RankId rank) { team_.worker(rank).begin_accounting(); });
}

std::vector<StageReport> Telemetry::stages() {
  std::vector<StageReport> all;
  std::mutex mutex;
  const auto keep = [&](const std::vector<StageReport>& reports) {
    const std::scoped_lock lock(mutex);
    all.insert(all.end(), reports.begin(), reports.end());
  };
  team_.run([&](RankId rank) {
    const std::vector<StageReport> own = team_.worker(rank).report();
    keep(own);
    Transport& transport = team_.transport(rank);
    if (!team_.is_own(RankId{0})) send_records(transport, RankId{0}, report_of(rank), own);
    if (rank != RankId{0}) return;
    for (RankId other{0}; other.value < team_.ranks(); ++other.value)
      if (!team_.is_own(other)) keep(receive_records<StageReport>(transport, other, report_of(other)));
  });
  std::sort(all.begin(), all.end(), [](const StageReport& a, const StageReport& b) {
    return std::pair(a.stage, a.rank) < std::pair(b.stage, b.rank);
  });
  return all;
}

std::vector<Bytes> Telemetry::peak_memory() {
  std::vector<Bytes> peaks(team_.size());
  team_.run([&](RankId rank) { peaks[team_.local(rank)] = team_.worker(rank).peak_memory(); });
  return peaks;
}

}  // namespace penstock
