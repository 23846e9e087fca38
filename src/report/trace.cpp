#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>

#include "penstock/report/report.h"
#include "penstock/schedule/verify.h"

#include "report/kinds.h"

namespace penstock {
namespace {

/// Whole nanoseconds: what a double of milliseconds adds behind them is rounding, and would only swell the file.
std::string microseconds(Milliseconds time) { return fmt::format("{:.3f}", time.count * 1000); }

void append_events(std::string& out, const std::vector<Event>& events, std::size_t rank) {
  for (const Event& event : events) {
    const KindStyle& style = style_of(event.action.kind);
    fmt::format_to(
        std::back_inserter(out),
        ",\n{{\"ph\":\"X\",\"pid\":0,\"tid\":{},\"name\":\"{}\",\"cat\":\"{}\",\"cname\":\"{}\",\"ts\":{},\"dur\":{},"
        "\"args\":{{\"stage\":{},\"microbatch\":{}}}}}",
        rank, to_string(event.action), style.category, style.trace_colour, microseconds(event.start),
        microseconds(event.end - event.start), event.action.stage.value, event.action.microbatch.value);
  }
}

void append_memory(std::string& out, const std::vector<MemorySample>& samples, std::size_t rank) {
  for (const MemorySample& sample : samples) {
    fmt::format_to(std::back_inserter(out),
                   ",\n{{\"ph\":\"C\",\"pid\":0,\"name\":\"memory of rank {}\",\"ts\":{},\"args\":{{\"bytes\":{}}}}}",
                   rank, microseconds(sample.time), sample.bytes.count);
  }
}

}  // namespace

std::string to_chrome_trace(const Timeline& timeline, std::string_view process) {
  // Formatted by hand: a trace of a long run has millions of events, and a tree of them would not fit in memory.
  std::string out = R"({"displayTimeUnit":"ms","traceEvents":[)";
  fmt::format_to(std::back_inserter(out),
                 "\n{{\"ph\":\"M\",\"pid\":0,\"name\":\"process_name\",\"args\":{{\"name\":{}}}}}",
                 nlohmann::json(process).dump());
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    fmt::format_to(
        std::back_inserter(out),
        ",\n{{\"ph\":\"M\",\"pid\":0,\"tid\":{0},\"name\":\"thread_name\",\"args\":{{\"name\":\"rank {0}\"}}}}"
        ",\n{{\"ph\":\"M\",\"pid\":0,\"tid\":{0},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{0}}}}}",
        rank);
    append_events(out, timeline.ranks[rank], rank);
    if (rank < timeline.memory.size()) append_memory(out, timeline.memory[rank], rank);
  }
  out += "\n]}\n";
  return out;
}

}  // namespace penstock
