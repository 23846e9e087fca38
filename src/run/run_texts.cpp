#include "run/run_texts.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"
#include "penstock/settings/data_sources.h"

namespace penstock {
namespace {

// What a rank holds, or all ranks of a device.
struct HeldMemory {
  std::string name;
  std::set<int> ranks;
  Bytes peak;
};

// A device other than the host knows only what all hold that are on it.
std::vector<HeldMemory> peaks_by_place(const std::vector<StageSummary>& stages, bool one_process) {
  std::map<std::string, std::set<int>> on_device;
  for (const StageSummary& stage : stages) on_device[stage.device].insert(stage.rank);
  std::map<int, HeldMemory> by_first_rank;
  for (const StageSummary& stage : stages) {
    const std::set<int>& together = on_device[stage.device];
    const bool shared = one_process && stage.device != "cpu" && together.size() > 1;
    HeldMemory place{fmt::format("rank {}", stage.rank), {stage.rank}, stage.peak_memory};
    if (shared) place = {stage.device, together, stage.peak_memory};
    by_first_rank[*place.ranks.begin()] = std::move(place);
  }
  std::vector<HeldMemory> places;
  places.reserve(by_first_rank.size());
  for (auto& [rank, place] : by_first_rank) places.push_back(std::move(place));
  return places;
}

}  // namespace

std::string planned_text(const PlanPrediction& planned, Milliseconds step, double measured_utilisation,
                         const std::vector<StageSummary>& stages, bool one_process) {
  const auto percent_off = [](double measured, double expected) { return 100 * (measured / expected - 1); };
  std::string text = fmt::format(
      "the plan and what was measured (medians):\n  a step     {} planned, {} measured ({:+.1f} %)\n"
      "  utilisation {:.1f} % planned, {:.1f} % measured",
      to_string(planned.step), to_string(step), percent_off(step.count, planned.step.count), 100 * planned.utilisation,
      100 * measured_utilisation);
  if (planned.memory.empty()) return text;
  for (const HeldMemory& place : peaks_by_place(stages, one_process)) {
    Bytes expected;
    // The first replica stands for all.
    for (const int rank : place.ranks)
      expected += planned.memory[static_cast<std::size_t>(rank) % planned.memory.size()];
    text += fmt::format("\n  peak memory of {:<8} {} planned, {} measured ({:+.1f} %)", place.name, to_string(expected),
                        to_string(place.peak),
                        percent_off(static_cast<double>(place.peak.count),
                                    static_cast<double>(std::max<std::int64_t>(expected.count, 1))));
  }
  return text;
}

std::string saving_text(const SavingTimes& times, const std::vector<double>& step_ms,
                        const std::vector<double>& beside_writes) {
  if (times.checkpoints == 0 || step_ms.empty()) return {};
  const double total = std::accumulate(step_ms.begin(), step_ms.end(), times.paused.count);
  std::string text = fmt::format(
      "{}: training waited {} for each ({:.1f} % of its time), written in {}", counted(times.checkpoints, "checkpoint"),
      to_string(Milliseconds{times.paused.count / times.checkpoints}), 100 * times.paused.count / total,
      to_string(Milliseconds{times.written.count / times.checkpoints}));
  if (!beside_writes.empty())
    text += fmt::format("; a step beside a write took {:+.1f} %",
                        100 * (quantile(beside_writes, 0.5) / quantile(step_ms, 0.5) - 1));
  return text;
}

std::string mixture_text(const TrainSettings& settings, const std::vector<SourceShare>& sources) {
  const std::vector<DataSource> named = data_sources(settings.data.paths);
  const std::vector<std::int64_t> drawn = counts_of_first(sources, settings.training.steps * settings.training.batch);
  std::int64_t weights = 0;
  for (const SourceShare& source : sources) weights += source.weight;
  std::string text = "the data is a mixture:";
  for (std::size_t index = 0; index < sources.size(); ++index) {
    const SourceShare& source = sources[index];
    // A window begins at every token: as many of them as do not overlap are one time through all tokens.
    const auto context = static_cast<double>(settings.data.context);
    const double windows = std::max(1.0, (static_cast<double>(source.size) + context) / context);
    text += fmt::format("{} {} {:.1f} % ({:.2g} times through its tokens)", index == 0 ? "" : ",", named[index].path,
                        100 * static_cast<double>(source.weight) / static_cast<double>(weights),
                        static_cast<double>(drawn[index]) / windows);
  }
  return text;
}

}  // namespace penstock
