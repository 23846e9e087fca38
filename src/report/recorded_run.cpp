#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <system_error>
#include <toml++/toml.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/index.h"
#include "penstock/base/text_limits.h"
#include "penstock/plan/plan.h"
#include "penstock/report/run_report.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using RecordJson = nlohmann::ordered_json;

constexpr double no_number = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t most_recorded_ranks = 100'000;

/// Calls `take` for every whole line that is an object with a step; the number of those that are none.
std::int64_t read_lines(const fs::path& file, const std::function<bool(const RecordJson&)>& take) {
  constexpr std::size_t longest = std::size_t{1} << 20;
  std::ifstream lines(file, std::ios::binary);
  std::int64_t refused = 0;
  std::string line;
  std::string piece(longest, '\0');
  bool too_long = false;
  while (lines) {
    lines.getline(piece.data(), static_cast<std::streamsize>(longest));
    const auto read = static_cast<std::size_t>(lines.gcount());
    if (lines.eof()) break;  // a line that is being written
    if (lines.fail()) {
      if (read == 0) break;
      too_long = true;
      lines.clear();
      continue;
    }
    if (std::exchange(too_long, false)) {
      ++refused;
      continue;
    }
    line.assign(piece, 0, read - 1);
    const auto object = RecordJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer() || !take(object))
      ++refused;
  }
  return refused;
}

double number_under(const RecordJson& line, const char* name, double otherwise = no_number) {
  const auto found = line.find(name);
  return found != line.end() && found->is_number() ? found->get<double>() : otherwise;
}

std::string text_under(const RecordJson& line, const char* name) {
  const auto found = line.find(name);
  return found != line.end() && found->is_string() ? found->get<std::string>() : "";
}

/// Empty where there is no list of numbers.
std::vector<double> numbers_under(const RecordJson& line, const char* name) {
  const auto found = line.find(name);
  if (found == line.end() || !found->is_array() || found->size() > most_recorded_ranks) return {};
  std::vector<double> numbers;
  for (const RecordJson& number : *found) {
    if (!number.is_number()) return {};
    numbers.push_back(number.get<double>());
  }
  return numbers;
}

std::vector<Bytes> sizes_under(const RecordJson& line, const char* name) {
  std::vector<Bytes> sizes;
  for (const double size : numbers_under(line, name)) {
    constexpr double most = 1e18;
    if (!(size >= 0 && size <= most)) return {};
    sizes.push_back({static_cast<std::int64_t>(size)});
  }
  return sizes;
}

/// The times of ranks, added up over the lines that have them.
struct RankSums {
  std::int64_t steps = 0;
  double step_ms = 0;
  std::vector<double> busy;
  std::vector<double> span;
  std::vector<double> link;

  void add(const RecordJson& line) {
    const std::vector<double> more_busy = numbers_under(line, "rank_busy_ms");
    const std::vector<double> more_span = numbers_under(line, "rank_span_ms");
    const std::vector<double> more_link = numbers_under(line, "rank_link_ms");
    const double step = number_under(line, "step_ms");
    const std::size_t ranks = more_busy.size();
    if (ranks == 0 || more_span.size() != ranks || more_link.size() != ranks || std::isnan(step)) return;
    if (ranks != busy.size()) *this = {0, 0, RunCurve(ranks, 0), RunCurve(ranks, 0), RunCurve(ranks, 0)};
    ++steps;
    step_ms += step;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      busy[rank] += more_busy[rank];
      span[rank] += more_span[rank];
      link[rank] += more_link[rank];
    }
  }

  /// Means of a step.
  [[nodiscard]] std::vector<RankTime> times() const {
    std::vector<RankTime> times;
    const auto mean = [&](double sum) { return Milliseconds{std::max(0.0, sum) / static_cast<double>(steps)}; };
    for (std::size_t rank = 0; rank < busy.size(); ++rank) {
      // A message may arrive while a rank waits for several: no wait is longer than what is left beside the passes.
      const double waited = std::min(link[rank], std::max(0.0, span[rank] - busy[rank]));
      times.push_back(
          {mean(busy[rank]), mean(waited), mean(span[rank] - busy[rank] - waited), mean(step_ms - span[rank])});
    }
    return times;
  }
};

/// Reads one file of a run's folder. Where the file is missing, `missing` becomes a note unless it is empty; where it
/// cannot be read, a note says why.
void read_part(RecordedRun& run, const fs::path& file, std::string_view missing,
               const std::function<void(const fs::path&)>& read) {
  if (!is_there(file)) {
    if (!missing.empty()) run.notes.emplace_back(missing);
    return;
  }
  try {
    read(file);
  } catch (const Error& error) {
    run.notes.push_back(fmt::format("{} cannot be read: {}.", file.filename().string(), error.what()));
  }
}

void add_line(RecordedRun& run, const RecordJson& line) {
  RunCurves& curves = run.curves;
  curves.steps.push_back(line["step"].get<std::int64_t>());
  curves.loss.push_back(number_under(line, "loss"));
  curves.held_out_loss.push_back(number_under(line, "held_out_loss"));
  curves.step_ms.push_back(number_under(line, "step_ms"));
  curves.data_ms.push_back(number_under(line, "data_ms"));
  curves.tokens_per_s.push_back(number_under(line, "tokens_per_s"));
  curves.utilisation.push_back(number_under(line, "utilisation"));
  curves.learning_rate.push_back(number_under(line, "learning_rate"));
  curves.gradient_norm.push_back(number_under(line, "grad_norm"));
  curves.checkpoint_ms.push_back(number_under(line, "checkpoint_ms", 0));
  curves.evaluation_ms.push_back(number_under(line, "evaluation_ms", 0));
  if (const auto found = line.find("tokens"); found != line.end() && found->is_number_integer())
    run.tokens = found->get<std::int64_t>();
  if (const double step = number_under(line, "planned_step_ms"); !std::isnan(step)) run.planned_step = {step};
  if (const double share = number_under(line, "planned_utilisation"); !std::isnan(share))
    run.planned_utilisation = share;
  std::string time = text_under(line, "time");
  if (run.first_time.empty()) run.first_time = time;
  run.last_time = std::move(time);
}

void read_metrics(RecordedRun& run, const fs::path& file) {
  RankSums sums;
  RecordJson last;
  const std::int64_t refused = read_lines(file, [&](const RecordJson& line) {
    const auto step = line["step"].get<std::int64_t>();
    if (!run.curves.steps.empty() && step <= run.curves.steps.back()) return false;
    add_line(run, line);
    sums.add(line);
    last = line;
    return true;
  });
  if (refused > 0)
    run.notes.push_back(fmt::format("{} of metrics.jsonl cannot be read, or repeat a step, and are left out.",
                                    counted(refused, "line")));
  run.ranks = sums.times();
  run.timed_steps = sums.steps;
  const std::vector<Bytes> peaks = sizes_under(last, "peak_memory_bytes");
  const std::vector<Bytes> activations = sizes_under(last, "peak_activation_bytes");
  run.memory.resize(std::max(peaks.size(), activations.size()));
  for (std::size_t rank = 0; rank < run.memory.size(); ++rank) {
    if (rank < peaks.size()) run.memory[rank].peak = peaks[rank];
    if (rank < activations.size()) run.memory[rank].peak_activations = activations[rank];
  }
}

std::string text_of_node(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  if (const auto number = node.value_exact<double>()) return fmt::format("{}", *number);
  if (const toml::array* list = node.as_array()) {
    std::string texts;
    for (const toml::node& element : *list) texts.append(texts.empty() ? "" : ", ").append(text_of_node(element));
    return texts;
  }
  std::ostringstream out;
  out << toml::node_view(node);
  return out.str();
}

void read_settings(RecordedRun& run, const fs::path& file) {
  const std::string text = read_file(file, std::int64_t{4} << 20);
  check_toml_limits(text, file.string(), {.most_values = 10'000});
  try {
    const toml::table table = toml::parse(text);
    std::vector<std::pair<toml::source_position, std::pair<std::string, std::string>>> found;
    for (const auto& [key, node] : table)
      found.push_back({node.source().begin, {std::string(key.str()), text_of_node(node)}});
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [position, setting] : found) run.settings.push_back(std::move(setting));
  } catch (const toml::parse_error& error) {
    run.notes.push_back(fmt::format("config.toml is not TOML: {}.", error.description()));
  }
}

/// The plan that the run follows, as it kept it, or where it took it from.
void read_plan(RecordedRun& run, const fs::path& folder) {
  if (!run.planned_step) return;
  fs::path file = folder / "plan.toml";
  if (!is_there(file))
    for (const auto& [name, value] : run.settings)
      if (name == "plan") file = value;
  try {
    const Plan plan = load_plan(file);
    const std::vector<Bytes>& planned = plan.prediction.memory;
    if (planned.empty()) return;
    if (run.memory.empty()) run.memory.resize(planned.size() * as_size(plan.replicas));
    // The first replica stands for all.
    for (std::size_t rank = 0; rank < run.memory.size(); ++rank)
      run.memory[rank].planned = planned[rank % planned.size()];
  } catch (const Error& error) {
    run.notes.push_back(fmt::format("The plan cannot be read, so its memory is left out: {}.", error.what()));
  }
}

/// A number from 0 to `most`; 0 where there is none.
double checked_number(const RecordJson& line, const char* name, double most) {
  const double number = number_under(line, name, 0);
  if (number >= 0 && number <= most) return number;
  throw bad_input(fmt::format("{} is {}", name, number), fmt::format("a number from 0 to {}", most),
                  "delete the file, or take another folder");
}

void read_links(RecordedRun& run, const fs::path& file) {
  constexpr double most = 1e18;
  constexpr auto last_rank = static_cast<double>(most_recorded_ranks - 1);
  const std::string text = read_file(file);
  check_json_limits(text, file.string(), {.deepest = 4, .most_values = 5'000'000});
  const auto list = RecordJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) throw bad_input("no list", "what penstock train writes", "take another folder");
  std::vector<LinkUse> links;
  for (const RecordJson& link : list) {
    if (!link.is_object()) continue;
    LinkUse use;
    use.from = static_cast<int>(checked_number(link, "from", last_rank));
    use.to = static_cast<int>(checked_number(link, "to", last_rank));
    use.between_processes = link.contains("between_processes") && link["between_processes"] == true;
    use.bytes.count = static_cast<std::int64_t>(checked_number(link, "bytes", most));
    use.messages = static_cast<std::int64_t>(checked_number(link, "messages", most));
    use.waited.count = checked_number(link, "waited_ms", most);
    use.transfer.count = checked_number(link, "transfer_ms", most);
    use.hidden = use.transfer * std::min(1.0, checked_number(link, "hidden", most));
    links.push_back(use);
  }
  run.links = std::move(links);
}

void read_step(RecordedRun& run, const fs::path& file) { run.step = read_chrome_trace(read_file(file)); }

void read_run_events(RecordedRun& run, const fs::path& file) {
  const std::int64_t refused = read_lines(file, [&](const RecordJson& line) {
    run.events.push_back({text_under(line, "time"), line["step"].get<std::int64_t>(), text_under(line, "event"),
                          text_under(line, "text")});
    // The end of a run has no line of its own in metrics.jsonl.
    const double loss = number_under(line, "held_out_loss");
    if (const RunCurves& curves = run.curves; !std::isnan(loss) && !curves.steps.empty()) {
      const auto found = std::lower_bound(curves.steps.begin(), curves.steps.end(), run.events.back().step);
      if (found != curves.steps.end() && *found == run.events.back().step)
        run.curves.held_out_loss[as_index(found - curves.steps.begin())] = loss;
    }
    return true;
  });
  if (refused > 0) run.notes.push_back(fmt::format("{} of events.jsonl cannot be read.", counted(refused, "line")));
}

/// If the lines of a run do not say what its ranks did, the last step stands for all.
void take_times_from_step(RecordedRun& run) {
  if (run.timed_steps > 0 || !run.step || run.curves.steps.empty()) return;
  const Timeline& timeline = run.step->timeline;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    const RankId id{static_cast<std::int32_t>(rank)};
    const Milliseconds busy = busy_time(timeline, id);
    run.ranks.push_back({busy, {}, span(timeline, id) - busy, {}});
  }
  run.notes.emplace_back(
      "metrics.jsonl does not say what each rank did, as in runs of old: where the time goes is that of the kept step "
      "alone, its waiting for links is a part of the bubble, and the update is left out.");
}

}  // namespace

RecordedRun read_run(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    throw bad_input(fmt::format("{} is no folder", shortened(folder.string())), "the folder of a run of penstock train",
                    "check the path");
  if (!is_there(folder / "config.toml") && !is_there(folder / "metrics.jsonl"))
    throw bad_input(fmt::format("{} holds no run", shortened(folder.string())), "the folder of a run of penstock train",
                    "check the path");
  RecordedRun run;
  run.name = folder.string();
  const auto read = [&](const char* name, const char* missing, void (*part)(RecordedRun&, const fs::path&)) {
    read_part(run, folder / name, missing, [&](const fs::path& file) { part(run, file); });
  };
  read("config.toml", "There is no config.toml: the settings are not known.", read_settings);
  read("metrics.jsonl", "There is no metrics.jsonl: no step has ended yet.", read_metrics);
  read_plan(run, folder);
  read("links.json", "", read_links);
  read("timeline.json", "There is no timeline.json yet: a run writes it with each checkpoint, and at its end.",
       read_step);
  read("events.jsonl", "There is no events.jsonl, as in runs of old: starts, restarts and drift are not known.",
       read_run_events);
  take_times_from_step(run);
  return run;
}

}  // namespace penstock
