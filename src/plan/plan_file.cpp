#include "penstock/plan/plan_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <numeric>
#include <optional>
#include <toml++/toml.h>
#include <type_traits>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/index.h"
#include "penstock/base/text_limits.h"
#include "penstock/schedule/generators.h"

namespace penstock {
namespace {

std::string real(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string in_quotes(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    // TOML allows no control character in a text.
    if ((letter >= 0 && letter < ' ') || letter == '\x7f')
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(letter));
    else
      result += letter;
  }
  return result + '"';
}

std::string tie_words(const LayerTie& tie) {
  const auto end = [](const LayerParameter& of) {
    return fmt::format("{{layer = {}, parameter = {}}}", of.layer, in_quotes(of.parameter));
  };
  return fmt::format("{{owner = {}, copy = {}, bytes = {}}}", end(tie.owner), end(tie.copy), tie.size.count);
}

constexpr std::int64_t largest_size = std::int64_t{1} << 50;

/// The keys of a plan in one table of the file.
class Reader {
 public:
  Reader(const toml::table& table, std::string source) : table_(table), source_(std::move(source)) {}

  template <class Value>
  [[nodiscard]] Value read(std::string_view key, const char* expected) const {
    const auto value = table_[key].value<Value>();
    if (!value) throw refuse(key, expected);
    // A system call would see a file's name only up to a zero byte.
    if constexpr (std::is_same_v<Value, std::string>)
      if (value->find('\0') != std::string::npos) throw refuse(key, expected);
    return *value;
  }

  [[nodiscard]] int count(std::string_view key) const {
    constexpr std::int64_t most = 1'000'000;
    const auto value = table_[key].value_exact<std::int64_t>();
    if (!value || *value < 1 || *value > most) throw refuse(key, "a whole number, 1 to 1000000");
    return static_cast<int>(*value);
  }

  [[nodiscard]] double number(std::string_view key) const {
    const auto value = table_[key].value<double>();
    if (!value || !in_range(*value)) throw refuse(key, "a number, 0 to 1e12");
    return *value;
  }

  [[nodiscard]] std::vector<Bytes> sizes(std::string_view key) const {
    std::vector<Bytes> sizes;
    const toml::array* array = table_[key].as_array();
    if (array == nullptr) throw refuse(key, "a list of numbers of bytes");
    for (const toml::node& node : *array) {
      const auto value = node.value<std::int64_t>();
      if (!value || *value < 0 || *value > largest_size) throw refuse(key, "a list of numbers of bytes");
      sizes.push_back({*value});
    }
    return sizes;
  }

  /// Empty if the key is missing, as in files of earlier versions.
  [[nodiscard]] std::vector<Milliseconds> times(std::string_view key) const {
    std::vector<Milliseconds> times;
    if (!table_.contains(key)) return times;
    const toml::array* array = table_[key].as_array();
    if (array == nullptr) throw refuse(key, "a list of numbers of milliseconds");
    for (const toml::node& node : *array) {
      const auto value = node.value<double>();
      if (!value || !in_range(*value)) throw refuse(key, "a list of numbers of milliseconds, 0 to 1e12");
      times.push_back({*value});
    }
    return times;
  }

  /// Empty if the key is missing, as above.
  [[nodiscard]] std::vector<LayerTie> ties(std::string_view key, std::int64_t layers) const {
    constexpr const char* expected = "a list of {owner = {layer, parameter}, copy = {layer, parameter}, bytes}";
    std::vector<LayerTie> ties;
    if (!table_.contains(key)) return ties;
    const toml::array* array = table_[key].as_array();
    if (array == nullptr) throw refuse(key, expected);
    for (const toml::node& node : *array) {
      const toml::table* entry = node.as_table();
      if (entry == nullptr) throw refuse(key, expected);
      const auto end = [&](const char* name) {
        const auto layer = (*entry)[name]["layer"].value<std::int64_t>();
        const auto parameter = (*entry)[name]["parameter"].value<std::string>();
        if (!layer || !parameter || *layer < 0 || *layer >= layers) throw refuse(key, expected);
        return LayerParameter{*layer, *parameter};
      };
      const auto size = (*entry)["bytes"].value<std::int64_t>();
      if (!size || *size < 0 || *size > largest_size) throw refuse(key, expected);
      ties.push_back({end("owner"), end("copy"), {*size}});
    }
    return ties;
  }

  [[nodiscard]] Error refuse(std::string_view key, const char* expected) const {
    const auto node = table_[key];
    return bad_input(fmt::format("{}: {} is {}", source_, key, node ? "something else" : "missing"), expected,
                     "write the plan anew with penstock plan -o");
  }

 private:
  // NaN is in no range.
  [[nodiscard]] static bool in_range(double value) { return value >= 0 && value <= 1e12; }

  const toml::table& table_;
  std::string source_;
};

struct LayerRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// "4" or "4-7".
std::optional<LayerRange> layer_range(std::string_view words, std::int64_t layers) {
  const char* const begin = std::to_address(words.begin());
  const char* const end = begin + words.size();
  LayerRange range;
  auto [after, code] = std::from_chars(begin, end, range.first);
  range.last = range.first;
  if (code == std::errc() && after != end && *after == '-') {
    const auto second = std::from_chars(after + 1, end, range.last);
    after = second.ptr;
    code = second.ec;
  }
  const bool whole = code == std::errc() && after == end;
  if (!whole || range.first < 0 || range.first > range.last || range.last >= layers) return std::nullopt;
  return range;
}

// Plans recompute whole stages: each is named by the range that begins with its first layer, or lies within one. Ranges
// are marked by their ends, as there may be as many as layers, and each as long.
std::optional<std::vector<bool>> recomputed_stages(std::string_view words, const Plan& plan) {
  std::vector<bool> stages(plan.cut.size(), words == "full");
  if (words == "none" || words == "full") return stages;
  std::vector<std::int64_t> ends(as_size(plan.layers) + 1);
  for (std::size_t begin = 0; begin <= words.size();) {
    const std::size_t end = std::min(words.find(',', begin), words.size());
    const auto range = layer_range(words.substr(begin, end - begin), plan.layers);
    if (!range) return std::nullopt;
    ++entry(ends, range->first);
    --ends[as_index(range->last) + 1];
    begin = end + 1;
  }
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  for (std::size_t stage = 0; stage < stages.size(); ++stage) stages[stage] = entry(ends, plan.cut[stage]) > 0;
  return stages;
}

std::string read_schedule_file(const std::filesystem::path& plan, const std::string& schedule) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(schedule, ignored)) return read_file(schedule);
  return read_file(plan.parent_path() / std::filesystem::path(schedule).filename());
}

}  // namespace

bool needs_schedule_file(const Plan& plan) {
  const ScheduleFamily* family = find_schedule_family(plan.schedule);
  return !plan.schedule_csv.empty() || family == nullptr || family->stages_per_rank != plan.stages_per_rank;
}

std::string recompute_words(const Plan& plan) {
  const auto count = std::count(plan.recomputed.begin(), plan.recomputed.end(), true);
  if (count == 0) return "none";
  if (count == plan.stages()) return "full";
  std::vector<std::string> ranges;
  for (std::size_t stage = 0; stage < plan.cut.size(); ++stage) {
    if (!plan.recomputed[stage]) continue;
    const std::int64_t first = plan.cut[stage];
    while (stage + 1 < plan.cut.size() && plan.recomputed[stage + 1]) ++stage;
    const std::int64_t last = (stage + 1 < plan.cut.size() ? plan.cut[stage + 1] : plan.layers) - 1;
    ranges.push_back(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
  return fmt::format("{}", fmt::join(ranges, ","));
}

std::string to_toml(const Plan& plan, std::string_view schedule_file) {
  const PlanPrediction& prediction = plan.prediction;
  std::vector<std::int64_t> memory;
  memory.reserve(prediction.memory.size());
  std::vector<std::string> passes;
  passes.reserve(prediction.stage_passes.size());
  for (const Milliseconds pass : prediction.stage_passes) passes.push_back(real(pass.count));
  for (const Bytes bytes : prediction.memory) memory.push_back(bytes.count);
  std::string text = "# Chosen by `penstock plan`.\n";
  text += fmt::format("batch = {}\nstages = {}\ncut = {}\nschedule = {}\nmicrobatches = {}\nrecompute = {}\n",
                      plan.batch, plan.stages(), in_quotes(to_text(plan.cut)),
                      in_quotes(needs_schedule_file(plan) ? schedule_file : std::string_view(plan.schedule)),
                      plan.microbatches * plan.replicas, in_quotes(recompute_words(plan)));
  if (plan.replicas > 1) text += fmt::format("replicas = {}\n", plan.replicas);
  if (plan.threads_per_rank > 0) text += fmt::format("threads-per-rank = {}\n", plan.threads_per_rank);
  text += fmt::format("\n[prediction]\nschedule = {}\nranks = {}\nstages-per-rank = {}\nreplicas = {}\nlayers = {}\n",
                      in_quotes(plan.schedule), plan.ranks, plan.stages_per_rank, plan.replicas, plan.layers);
  text += fmt::format("step-ms = {}\npipeline-ms = {}\nexchange-ms = {}\nupdate-ms = {}\n", real(prediction.step.count),
                      real(prediction.pipeline.count), real(prediction.exchange.count), real(prediction.update.count));
  text += fmt::format("utilisation = {}\nsamples-per-second = {}\nmemory-bytes = [{}]\n", real(prediction.utilisation),
                      real(prediction.samples_per_second), fmt::join(memory, ", "));
  if (!passes.empty()) text += fmt::format("stage-ms = [{}]\n", fmt::join(passes, ", "));
  std::vector<std::string> ties;
  ties.reserve(plan.ties.size());
  for (const LayerTie& tie : plan.ties) ties.push_back(tie_words(tie));
  if (!ties.empty()) text += fmt::format("ties = [{}]\n", fmt::join(ties, ", "));
  if (plan.shared_ties) text += "shared-ties = true\n";
  if (!plan.costs_file.empty()) text += fmt::format("costs = {}\n", in_quotes(plan.costs_file));
  return text;
}

void save_plan(const Plan& plan, const std::filesystem::path& path) {
  std::filesystem::path schedule = path;
  schedule.replace_extension(".csv");
  if (needs_schedule_file(plan)) write_file_atomically(schedule, to_csv(schedule_of(plan).get()));
  write_file_atomically(path, to_toml(plan, schedule.string()));
}

Plan load_plan(const std::filesystem::path& path) {
  toml::table table;
  constexpr std::int64_t longest = std::int64_t{4} << 20;
  const std::string text = read_file(path, longest);
  check_toml_limits(text, path.string(), {.most_values = 100'000});
  try {
    table = toml::parse(text, path.string());
  } catch (const toml::parse_error& error) {
    throw bad_input(
        fmt::format("{} line {} is not TOML: {}", path.string(), error.source().begin.line, error.description()),
        "a plan", "write it anew with penstock plan -o");
  }
  const Reader settings(table, path.string());
  const toml::table* predicted = table["prediction"].as_table();
  if (predicted == nullptr) throw settings.refuse("prediction", "the table that penstock plan writes");
  const Reader prediction(*predicted, path.string() + ": prediction");
  Plan plan;
  plan.batch = settings.count("batch");
  plan.ranks = prediction.count("ranks");
  plan.stages_per_rank = prediction.count("stages-per-rank");
  plan.replicas = prediction.count("replicas");
  // A run counts those of all replicas.
  plan.microbatches = settings.count("microbatches") / plan.replicas;
  if (plan.microbatches < 1)
    throw settings.refuse("microbatches", "at least one for each of the prediction's replicas");
  plan.layers = prediction.count("layers");
  if (table.contains("threads-per-rank")) plan.threads_per_rank = settings.count("threads-per-rank");
  const int stages = settings.count("stages");
  const auto cut = settings.read<std::string>("cut", "a text, such as \"3,6,9\"");
  plan.cut = cut == "uniform" ? uniform_cut(plan.layers, stages) : parse_cut(cut, plan.layers, stages);
  const char* layers_expected = "none, full, or the plan's layers, such as \"0-3,8\"";
  const auto recomputed = recomputed_stages(settings.read<std::string>("recompute", layers_expected), plan);
  if (!recomputed) throw settings.refuse("recompute", layers_expected);
  plan.recomputed = *recomputed;
  plan.schedule = prediction.read<std::string>("schedule", "a schedule's name");
  if (plan.schedule == synthesised_schedule)
    plan.schedule_csv = read_schedule_file(path, settings.read<std::string>("schedule", "a file's name"));
  plan.prediction.step = {prediction.number("step-ms")};
  plan.prediction.pipeline = {prediction.number("pipeline-ms")};
  plan.prediction.exchange = {prediction.number("exchange-ms")};
  plan.prediction.update = {prediction.number("update-ms")};
  plan.prediction.utilisation = prediction.number("utilisation");
  plan.prediction.samples_per_second = prediction.number("samples-per-second");
  plan.prediction.memory = prediction.sizes("memory-bytes");
  plan.prediction.stage_passes = prediction.times("stage-ms");
  plan.ties = prediction.ties("ties", plan.layers);
  if (predicted->contains("shared-ties")) plan.shared_ties = prediction.read<bool>("shared-ties", "true or false");
  if (predicted->contains("costs")) plan.costs_file = prediction.read<std::string>("costs", "a file's name");
  return plan;
}

}  // namespace penstock
