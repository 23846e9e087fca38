#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>
#include <toml++/toml.h>
#include <type_traits>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/index.h"
#include "penstock/base/text_limits.h"
#include "penstock/plan/plan.h"
#include "penstock/plan/plan_layout.h"
#include "penstock/schedule/replicas.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/toml_text.h"

namespace penstock {
namespace {

std::string tie_words(const LayerTie& tie) {
  const auto end = [](const LayerParameter& of) {
    return fmt::format("{{layer = {}, parameter = {}}}", of.layer, toml_text(of.parameter));
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

  /// A choice of one of these kinds.
  template <class Choice>
  [[nodiscard]] Choice choice(std::string_view key, std::initializer_list<typename Choice::Kind> kinds,
                              const char* expected) const {
    const auto text = read<std::string>(key, expected);
    const auto chosen = [&]() -> std::optional<Choice> {
      try {
        return Choice(text);
      } catch (const Error&) {
        return std::nullopt;
      }
    }();
    if (!chosen || std::find(kinds.begin(), kinds.end(), chosen->kind()) == kinds.end()) throw refuse(key, expected);
    return *chosen;
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
                     "write the plan anew with penstock plan");
  }

 private:
  // NaN is in no range.
  [[nodiscard]] static bool in_range(double value) { return value >= 0 && value <= 1e12; }

  const toml::table& table_;
  std::string source_;
};

// Plans recompute whole stages: each is named by the range that begins with its first layer, or lies within one.
std::vector<bool> recomputed_stages(const Recompute& recompute, const Plan& plan) {
  const std::vector<bool> layers = recomputed_layers(recompute, plan.layers);
  std::vector<bool> stages(plan.cut.size(), false);
  for (std::size_t stage = 0; stage < stages.size() && !layers.empty(); ++stage)
    stages[stage] = layers[as_index(plan.cut[stage])];
  return stages;
}

}  // namespace

std::string to_toml(const Plan& plan, std::string_view schedule_file) {
  const PlanPrediction& prediction = plan.prediction;
  std::vector<std::int64_t> memory;
  memory.reserve(prediction.memory.size());
  std::vector<std::string> passes;
  passes.reserve(prediction.stage_passes.size());
  for (const Milliseconds pass : prediction.stage_passes) passes.push_back(toml_text(pass.count));
  for (const Bytes bytes : prediction.memory) memory.push_back(bytes.count);
  std::string text = "# Chosen by `penstock plan`.\n";
  const Layout layout = with_plan({}, plan, schedule_file);
  text += fmt::format("batch = {}\nstages = {}\ncut = {}\nschedule = {}\nmicrobatches = {}\nrecompute = {}\n",
                      plan.batch, layout.stages, toml_text(to_text(layout.cut)), toml_text(to_text(layout.schedule)),
                      to_text(layout.microbatches), toml_text(to_text(layout.recompute)));
  if (plan.replicas > 1) text += fmt::format("replicas = {}\n", plan.replicas);
  if (plan.gradient_tree > 0) text += fmt::format("gradient-tree = {}\n", plan.gradient_tree);
  if (plan.threads_per_rank > 0) text += fmt::format("threads-per-rank = {}\n", plan.threads_per_rank);
  text += fmt::format("\n[prediction]\nschedule = {}\nranks = {}\nstages-per-rank = {}\nreplicas = {}\nlayers = {}\n",
                      toml_text(plan.schedule), plan.ranks, plan.stages_per_rank, plan.replicas, plan.layers);
  text += fmt::format("step-ms = {}\npipeline-ms = {}\nexchange-ms = {}\nupdate-ms = {}\n",
                      toml_text(prediction.step.count), toml_text(prediction.pipeline.count),
                      toml_text(prediction.exchange.count), toml_text(prediction.update.count));
  text +=
      fmt::format("utilisation = {}\nsamples-per-second = {}\nmemory-bytes = [{}]\n", toml_text(prediction.utilisation),
                  toml_text(prediction.samples_per_second), fmt::join(memory, ", "));
  if (!passes.empty()) text += fmt::format("stage-ms = [{}]\n", fmt::join(passes, ", "));
  std::vector<std::string> ties;
  ties.reserve(plan.ties.size());
  for (const LayerTie& tie : plan.ties) ties.push_back(tie_words(tie));
  if (!ties.empty()) text += fmt::format("ties = [{}]\n", fmt::join(ties, ", "));
  if (plan.shared_ties) text += "shared-ties = true\n";
  if (!plan.costs_file.empty()) text += fmt::format("costs = {}\n", toml_text(plan.costs_file));
  return text;
}

std::filesystem::path schedule_file_beside(std::filesystem::path plan_file) {
  return plan_file.replace_extension(".csv");
}

void save_plan(const Plan& plan, const std::filesystem::path& path) {
  const std::filesystem::path schedule = schedule_file_beside(path);
  if (needs_schedule_file(plan)) write_file_atomically(schedule, to_csv(schedule_of(plan).get()));
  // By its name alone: the two may move together.
  write_file_atomically(path, to_toml(plan, schedule.filename().string()));
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
        "a plan", "write it anew with penstock plan");
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
  if (table.contains("gradient-tree")) plan.gradient_tree = settings.count("gradient-tree");
  if (!allows_gradient_tree(plan.gradient_tree, plan.replicas, std::int64_t{plan.replicas} * plan.microbatches))
    throw settings.refuse("gradient-tree", "a power of two that the replicas divide and that divides the microbatches");
  plan.layers = prediction.count("layers");
  if (table.contains("threads-per-rank")) plan.threads_per_rank = settings.count("threads-per-rank");
  const int stages = settings.count("stages");
  const auto cut =
      settings.choice<CutChoice>("cut", {CutChoice::Uniform, CutChoice::Explicit}, "a text, such as \"3,6,9\"");
  plan.cut = cut_of(cut, plan.layers, stages);
  constexpr const char* layers_expected = "none, full, or the plan's layers, such as \"0-3,8\"";
  const auto recompute =
      settings.choice<Recompute>("recompute", {Recompute::None, Recompute::Full, Recompute::Layers}, layers_expected);
  if (!recompute.ranges().empty() && recompute.ranges().back().last >= plan.layers)
    throw settings.refuse("recompute", layers_expected);
  plan.recomputed = recomputed_stages(recompute, plan);
  plan.schedule = prediction.read<std::string>("schedule", "a schedule's name");
  if (plan.schedule == synthesised_schedule)
    plan.schedule_csv = read_file(schedule_file_of_plan(path, settings.read<std::string>("schedule", "a file's name")));
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
