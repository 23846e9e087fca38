#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"
#include "penstock/report/run_report.h"
#include "penstock/settings/settings.h"
#include "penstock/sim/measured_cost.h"
#include "penstock/sim/simulate.h"

#include "report/markup.h"
#include "report/page.h"

namespace penstock {
namespace {

using PageJson = nlohmann::ordered_json;

constexpr std::size_t most_points = 300;           // of a curve
constexpr std::size_t most_drawn_events = 60'000;  // of a step and its prediction
constexpr std::size_t most_told_events = 500;

/// Six significant figures: what is drawn shows no more, and a page should not spend its size on them. Null: no number.
PageJson rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::stod(fmt::format("{:.6g}", value));
}

PageJson rounded(const std::vector<double>& values) {
  PageJson list = PageJson::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

std::vector<double> numbers_of(const RunCurve& curve) {
  std::vector<double> numbers;
  std::copy_if(curve.begin(), curve.end(), std::back_inserter(numbers),
               [](double value) { return std::isfinite(value); });
  return numbers;
}

PageJson middle_of(const RunCurve& curve) {
  std::vector<double> numbers = numbers_of(curve);
  return numbers.empty() ? PageJson(nullptr) : rounded(quantile(std::move(numbers), 0.5));
}

double sum_of(const RunCurve& curve) {
  double sum = 0;
  for (const double value : curve)
    if (std::isfinite(value)) sum += value;
  return sum;
}

/// Few points as they are, many as bands: of each run of steps the middle one, and the least, median and largest value.
PageJson thinned(const std::vector<std::int64_t>& steps, const RunCurve& curve) {
  std::vector<std::size_t> there;
  for (std::size_t at = 0; at < curve.size(); ++at)
    if (std::isfinite(curve[at])) there.push_back(at);
  if (there.empty()) return nullptr;
  std::vector<double> at_steps;
  std::vector<double> least;
  std::vector<double> middle;
  std::vector<double> most;
  const std::size_t points = std::min(there.size(), most_points);
  for (std::size_t point = 0; point < points; ++point) {
    const std::size_t first = point * there.size() / points;
    const std::size_t end = (point + 1) * there.size() / points;
    std::vector<double> values;
    for (std::size_t at = first; at < end; ++at) values.push_back(curve[there[at]]);
    at_steps.push_back(static_cast<double>(steps[there[(first + end - 1) / 2]]));
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    least.push_back(*low);
    most.push_back(*high);
    middle.push_back(quantile(std::move(values), 0.5));
  }
  PageJson drawn{{"steps", rounded(at_steps)}, {"middle", rounded(middle)}};
  if (there.size() <= most_points) return drawn;
  drawn["least"] = rounded(least);
  drawn["most"] = rounded(most);
  drawn["steps_a_point"] = (there.size() + points - 1) / points;
  return drawn;
}

PageJson curves_of(const RunCurves& curves) {
  const std::vector<std::pair<const char*, const RunCurve*>> named = {
      {"loss", &curves.loss},
      {"held_out_loss", &curves.held_out_loss},
      {"step_ms", &curves.step_ms},
      {"data_ms", &curves.data_ms},
      {"tokens_per_s", &curves.tokens_per_s},
      {"utilisation", &curves.utilisation},
      {"learning_rate", &curves.learning_rate},
      {"grad_norm", &curves.gradient_norm},
  };
  PageJson drawn = PageJson::object();
  for (const auto& [name, curve] : named) drawn[name] = thinned(curves.steps, *curve);
  return drawn;
}

PageJson count_or_null(const std::optional<Bytes>& size) { return size ? PageJson(size->count) : PageJson(nullptr); }

std::string setting_of(const RecordedRun& run, std::string_view name) {
  for (const auto& [known, value] : run.settings)
    if (known == name) return value;
  return "";
}

/// What became of it, as far as it is known.
std::string state_of(const RecordedRun& run) {
  if (run.curves.steps.empty()) return "no step has ended yet";
  const std::int64_t done = run.curves.steps.back();
  const std::string wanted = setting_of(run, "steps");
  if (wanted == fmt::format("{}", done)) return fmt::format("all {} steps made", done);
  const std::string out_of = wanted.empty() ? "" : fmt::format(" of {}", wanted);
  const bool ended = !run.events.empty() && run.events.back().kind == "end";
  return fmt::format("step {}{}, {}", done, out_of, ended ? "stopped" : "under way, or ended without a word");
}

PageJson figures_of_run(const RecordedRun& run) {
  const RunCurves& curves = run.curves;
  const std::vector<double> held_out = numbers_of(curves.held_out_loss);
  const std::vector<double> losses = numbers_of(curves.loss);
  std::optional<Bytes> peak;
  for (const RankMemory& memory : run.memory)
    if (memory.peak && (!peak || *memory.peak > *peak)) peak = memory.peak;
  return {{"state", state_of(run)},
          {"first_time", run.first_time},
          {"last_time", run.last_time},
          {"steps", curves.steps.size()},
          {"tokens", run.tokens ? PageJson(*run.tokens) : PageJson(nullptr)},
          {"loss", losses.empty() ? PageJson(nullptr) : rounded(losses.back())},
          {"held_out_loss", held_out.empty() ? PageJson(nullptr) : rounded(held_out.back())},
          {"least_held_out_loss",
           held_out.empty() ? PageJson(nullptr) : rounded(*std::min_element(held_out.begin(), held_out.end()))},
          {"step_ms", middle_of(curves.step_ms)},
          {"tokens_per_s", middle_of(curves.tokens_per_s)},
          {"utilisation", middle_of(curves.utilisation)},
          {"planned_step_ms", run.planned_step ? rounded(run.planned_step->count) : PageJson(nullptr)},
          {"planned_utilisation", run.planned_utilisation ? rounded(*run.planned_utilisation) : PageJson(nullptr)},
          {"peak_memory_bytes", count_or_null(peak)},
          {"data_ms", middle_of(curves.data_ms)},
          {"training_ms", rounded(sum_of(curves.step_ms))},
          {"checkpoint_ms", rounded(sum_of(curves.checkpoint_ms))},
          {"evaluation_ms", rounded(sum_of(curves.evaluation_ms))}};
}

/// The kept step and what the simulator makes of its own median times; null where there is nothing to draw.
PageJson step_of(const RecordedRun& run, PageJson& notes) {
  if (!run.step) return nullptr;
  std::size_t events = 0;
  for (const auto& events_of_rank : run.step->timeline.ranks) events += events_of_rank.size();
  if (events > most_drawn_events) {
    notes.push_back(
        fmt::format("The kept step has {} actions, too many for this page: open timeline.json in "
                    "ui.perfetto.dev.",
                    events));
    return nullptr;
  }
  const Timeline measured = from_first_start(compute_actions(run.step->timeline));
  try {
    const Timeline predicted = simulate(verify(run.step->schedule, {.accumulation = Accumulation::AnyOrder}),
                                        measured_cost({run.step->timeline}, run.step->schedule));
    return chart_data({{"predicted", predicted}, {"measured", measured}}, {},
                      {.rank_by_rank = true, .figures = {}, .only_activations = true});
  } catch (const Error& error) {
    notes.push_back(fmt::format("The kept step cannot be predicted: {}.", error.what()));
    return chart_data({{"measured", measured}}, {}, {.rank_by_rank = true, .figures = {}, .only_activations = true});
  }
}

PageJson ranks_of_run(const RecordedRun& run) {
  PageJson ranks = PageJson::array();
  for (std::size_t rank = 0; rank < std::max(run.ranks.size(), run.memory.size()); ++rank) {
    PageJson& drawn = ranks.emplace_back(PageJson::object());
    if (rank < run.ranks.size()) {
      const RankTime& time = run.ranks[rank];
      drawn["compute_ms"] = rounded(time.compute.count);
      drawn["link_ms"] = rounded(time.link.count);
      drawn["bubble_ms"] = rounded(time.bubble.count);
      drawn["update_ms"] = rounded(time.update.count);
    }
    if (rank < run.memory.size()) {
      drawn["peak_bytes"] = count_or_null(run.memory[rank].peak);
      drawn["activation_bytes"] = count_or_null(run.memory[rank].peak_activations);
      drawn["planned_bytes"] = count_or_null(run.memory[rank].planned);
    }
  }
  return ranks;
}

PageJson links_of_run(const RecordedRun& run) {
  PageJson links = PageJson::array();
  for (const LinkUse& use : run.links)
    links.push_back({{"from", use.from},
                     {"to", use.to},
                     {"processes", use.between_processes},
                     {"bytes", use.bytes.count},
                     {"messages", use.messages},
                     {"waited_ms", rounded(use.waited.count)},
                     {"transfer_ms", rounded(use.transfer.count)},
                     {"hidden", rounded(hidden_share(use))}});
  return links;
}

PageJson events_of_run(const RecordedRun& run) {
  PageJson events = PageJson::array();
  const std::size_t first = run.events.size() > most_told_events ? run.events.size() - most_told_events : 0;
  for (std::size_t at = first; at < run.events.size(); ++at)
    events.push_back({run.events[at].time, run.events[at].step, run.events[at].kind, run.events[at].text});
  return events;
}

PageJson run_to_json(const RecordedRun& run) {
  PageJson notes = run.notes;
  if (run.events.size() > most_told_events)
    notes.push_back(fmt::format("Of {} events the last {} are shown.", run.events.size(), most_told_events));
  PageJson step = step_of(run, notes);
  return {{"name", run.name},           {"figures", figures_of_run(run)}, {"curves", curves_of(run.curves)},
          {"ranks", ranks_of_run(run)}, {"timed_steps", run.timed_steps}, {"links", links_of_run(run)},
          {"step", std::move(step)},    {"events", events_of_run(run)},   {"notes", std::move(notes)}};
}

/// For each setting whose values differ between the runs, its name and the runs' values; null: not there.
PageJson differing_settings(const std::vector<RecordedRun>& runs) {
  PageJson rows = PageJson::array();
  std::set<std::string> seen;
  for (const RecordedRun& run : runs)
    for (const auto& setting : run.settings) {
      const std::string& name = setting.first;
      if (!seen.insert(name).second) continue;
      PageJson row = PageJson::array({name});
      for (const RecordedRun& other : runs) {
        const auto found = std::find_if(other.settings.begin(), other.settings.end(),
                                        [&](const auto& known) { return known.first == name; });
        row.push_back(found == other.settings.end() ? PageJson(nullptr) : PageJson(found->second));
      }
      const bool differs =
          std::any_of(row.begin() + 2, row.end(), [&](const PageJson& value) { return value != row[1]; });
      if (differs || runs.size() == 1) rows.push_back(std::move(row));
    }
  return rows;
}

}  // namespace

std::string to_html(const std::vector<RecordedRun>& runs, const RunPageOptions& options) {
  PageJson drawn = PageJson::array();
  for (const RecordedRun& run : runs) drawn.push_back(run_to_json(run));
  const PageJson data{{"runs", std::move(drawn)}, {"settings", differing_settings(runs)}};
  const std::string reload = options.reload_seconds > 0
                                 ? fmt::format(R"(<meta http-equiv="refresh" content="{}">)", options.reload_seconds)
                                 : "";
  return fill(run_page_template, {{"%TITLE%", escape_markup(options.title)},
                                  {"%RELOAD%", reload},
                                  {"%CHART%", std::string(timeline_chart)},
                                  {"%CURVES%", std::string(run_curves)},
                                  {"%DATA%", to_script(data)}});
}

}  // namespace penstock
