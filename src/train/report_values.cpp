#include "train/report_values.h"

#include <fmt/format.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::size_t values_of_report = 8;
constexpr std::size_t values_of_event = 9;
constexpr int action_kinds = static_cast<int>(ActionKind::ReceiveBackward) + 1;

void check_count(const std::vector<double>& values, std::size_t each) {
  if (values.size() % each != 0)
    throw run_failed(fmt::format("a report of {} numbers", values.size()), fmt::format("{} for each entry", each),
                     "start every process of the run with the same penstock");
}

}  // namespace

std::vector<double> to_values(const std::vector<StageReport>& reports) {
  std::vector<double> values;
  for (const StageReport& report : reports)
    values.insert(
        values.end(),
        {static_cast<double>(report.stage), static_cast<double>(report.rank), static_cast<double>(report.first_layer),
         static_cast<double>(report.layers), static_cast<double>(report.parameters), report.busy_share,
         static_cast<double>(report.peak_memory.count), static_cast<double>(report.sent.count)});
  return values;
}

std::vector<StageReport> stage_reports(const std::vector<double>& values) {
  check_count(values, values_of_report);
  std::vector<StageReport> reports;
  for (std::size_t next = 0; next < values.size(); next += values_of_report) {
    const auto whole = [&](std::size_t index) { return static_cast<std::int64_t>(values[next + index]); };
    reports.push_back({static_cast<int>(whole(0)), static_cast<int>(whole(1)), whole(2), whole(3), whole(4),
                       values[next + 5], Bytes{whole(6)}, Bytes{whole(7)}});
  }
  return reports;
}

std::vector<double> to_values(const WorkerStep& step) {
  std::vector<double> values;
  values.reserve(step.events.size() * values_of_event);
  for (std::size_t index = 0; index < step.events.size(); ++index) {
    const Event& event = step.events[index];
    const Receipt& receipt = step.receipts[index];
    values.insert(values.end(),
                  {static_cast<double>(event.action.kind), static_cast<double>(event.action.stage.value),
                   static_cast<double>(event.action.microbatch.value), event.start.count, event.end.count,
                   static_cast<double>(step.activations[index].count), static_cast<double>(receipt.from.value),
                   static_cast<double>(receipt.bytes.count), receipt.arrived.count});
  }
  return values;
}

void take_values(const std::vector<double>& values, Milliseconds clock_is_ahead, WorkerStep& step) {
  check_count(values, values_of_event);
  for (std::size_t next = 0; next < values.size(); next += values_of_event) {
    const auto whole = [&](std::size_t index) { return static_cast<std::int32_t>(values[next + index]); };
    if (whole(0) < 0 || whole(0) >= action_kinds)
      throw run_failed(fmt::format("a report of the action {}", whole(0)), fmt::format("below {}", action_kinds),
                       "start every process of the run with the same penstock");
    const Action action{static_cast<ActionKind>(whole(0)), StageId{whole(1)}, MicrobatchId{whole(2)}};
    step.events.push_back(
        {action, Milliseconds{values[next + 3]} - clock_is_ahead, Milliseconds{values[next + 4]} - clock_is_ahead});
    step.activations.push_back(Bytes{static_cast<std::int64_t>(values[next + 5])});
    step.receipts.push_back({RankId{whole(6)}, Bytes{static_cast<std::int64_t>(values[next + 7])},
                             Milliseconds{values[next + 8]} - clock_is_ahead});
  }
}

}  // namespace penstock
