#include "penstock/settings/settings.h"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <optional>
#include <toml++/toml.h>
#include <type_traits>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/nearest.h"
#include "penstock/base/parse_bytes.h"
#include "penstock/base/text_limits.h"
#include "penstock/settings/setting_words.h"

namespace penstock {
namespace {

std::string nearest_setting(std::string_view unknown) {
  std::vector<std::string> names;
  const TrainSettings settings;
  visit_settings(settings, [&](SettingGroup, const char* name, const auto&, const char*) { names.emplace_back(name); });
  return nearest_word(unknown, names).value_or("");
}

template <class Value>
constexpr const char* type_name() {
  if constexpr (std::same_as<Value, bool>) return "true or false";
  if constexpr (std::integral<Value>) return "a whole number";
  if constexpr (std::floating_point<Value>) return "a number";
  if constexpr (std::same_as<Value, std::string>) return "a text in quotes";
  return "a list of texts";
}

// No value where the node is of another type.
template <class Value>
std::optional<Value> read_node(const toml::node& node) {
  if constexpr (std::same_as<Value, std::vector<std::string>>) {
    if (const auto text = node.value_exact<std::string>()) return Value{*text};
    const toml::array* list = node.as_array();
    if (list == nullptr) return std::nullopt;
    Value values;
    for (const toml::node& element : *list) {
      const auto text = element.value_exact<std::string>();
      if (!text) return std::nullopt;
      values.push_back(*text);
    }
    return values;
  } else if constexpr (std::floating_point<Value>) {
    return node.value<double>();
  } else if constexpr (std::integral<Value> && !std::same_as<Value, bool>) {
    const auto number = node.value_exact<std::int64_t>();
    if (!number || !std::in_range<Value>(*number)) return std::nullopt;
    return static_cast<Value>(*number);
  } else {
    return node.value_exact<Value>();
  }
}

// What stands behind it no system call would see.
bool holds_zero(const std::string& text) { return text.find('\0') != std::string::npos; }
bool holds_zero(const std::vector<std::string>& texts) {
  return std::any_of(texts.begin(), texts.end(), [](const std::string& text) { return holds_zero(text); });
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    // TOML takes neither as they are.
    if (static_cast<unsigned char>(letter) < 0x20 || letter == '\x7f') {
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(letter));
    } else {
      result += letter;
    }
  }
  return result + '"';
}

std::string toml_value(bool value) { return value ? "true" : "false"; }
std::string toml_value(std::integral auto value) { return fmt::format("{}", value); }
std::string toml_value(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}
std::string toml_value(const std::string& value) { return quoted(value); }
std::string toml_value(const std::vector<std::string>& values) {
  std::vector<std::string> elements;
  std::transform(values.begin(), values.end(), std::back_inserter(elements), quoted);
  return fmt::format("[{}]", fmt::join(elements, ", "));
}

const char* heading(SettingGroup group) {
  switch (group) {
    case SettingGroup::Data:
      return "What is learned from";
    case SettingGroup::Network:
      return "The network";
    case SettingGroup::Pipeline:
      return "How it is cut and scheduled";
    case SettingGroup::Training:
      return "How it is trained";
    case SettingGroup::Processes:
      return "Where it runs";
    case SettingGroup::Run:
      return "What is kept and reported";
  }
  return "";
}

void check_at_least(const char* name, double value, double least) {
  if (!std::isfinite(value))
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("a finite number of at least {}", least),
                    "change " + field(name));
  if (value < least)
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at least {}", least),
                    "raise " + field(name));
}

// Numbers near the largest int overflow on their way; these are beyond every machine and far from that.
void check_between(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  check_at_least(name, static_cast<double>(value), static_cast<double>(least));
  if (value > most)
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at most {}", most),
                    "lower " + field(name));
}

void check_share(const char* name, double value) {
  if (!(value >= 0 && value < 1))
    throw bad_input(fmt::format("{} is {}", field(name), value), "a number in [0, 1)", "change " + field(name));
}

void check_one_of(const char* name, const std::string& value, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) == known.end())
    throw bad_input(fmt::format("{} is \"{}\"", field(name), value), fmt::format("one of {}", fmt::join(known, ", ")),
                    fmt::format("change {}{}", field(name), did_you_mean(value, known)));
}

constexpr std::int64_t most = 1'000'000'000;
// A layer has a name and a builder on every rank, and a thread a stack.
constexpr std::int64_t most_layers = 100'000;

// What is chosen is chosen once, before the first step, by one process.
void check_automatic(const TrainSettings& settings) {
  if (!is_automatic(settings)) return;
  if (settings.processes > 1)
    throw bad_input(fmt::format("auto with `processes` = {}", settings.processes),
                    "a plan, where several processes share a run",
                    "write one with penstock plan -o plan.toml and give it with `plan`");
  if (settings.replicas > 1)
    throw bad_input(fmt::format("auto with `replicas` = {}", settings.replicas), "a plan, where replicas share a run",
                    "write one with penstock plan for that many replicas and give it with `plan`");
  if (settings.ranks == 0 && settings.devices.empty())
    throw bad_input("auto without `ranks`", "the number of ranks to plan for, or auto", "set `ranks`");
  if (settings.recompute != "auto" && settings.recompute != "none" && settings.recompute != "full")
    throw bad_input(fmt::format("`recompute` = {} with auto", shortened(settings.recompute)), "auto, none or full",
                    "change `recompute`, or choose cut, schedule and microbatches too");
}

void check_rates(const TrainSettings& settings) {
  // Beyond it an update leaves the range of a float, and the loss is blamed.
  constexpr double largest = 1e9;
  for (const auto& [name, value] : {std::pair<const char*, double>{"learning-rate", settings.learning_rate},
                                    {"final-learning-rate", settings.final_learning_rate},
                                    {"weight-decay", settings.weight_decay},
                                    {"clip", settings.clip},
                                    {"epsilon", settings.epsilon},
                                    {"drift", settings.drift}}) {
    check_at_least(name, value, 0);
    if (value > largest)
      throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at most {}", largest),
                      "lower " + field(name));
  }
}

void check_replicas(const TrainSettings& settings) {
  constexpr int most_replicas = 4096;
  check_between("replicas", settings.replicas, 1, most_replicas);
  check_between("zero", settings.zero, 0, 1);
  static_cast<void>(parse_bytes("`gradient_bucket`", settings.gradient_bucket));
  if (settings.microbatches != automatic_count && settings.replicas > settings.microbatches)
    throw bad_input(fmt::format("{} replicas for {}", settings.replicas, counted(settings.microbatches, "microbatch")),
                    "at least one microbatch for each replica", "lower `replicas` or raise `microbatches`");
}

void check_settings_without_folder(const TrainSettings& settings);

}  // namespace

bool is_automatic(const TrainSettings& settings) {
  return settings.schedule == "auto" || settings.cut == "auto" || settings.recompute == "auto" ||
         settings.microbatches == automatic_count || settings.ranks == automatic_count;
}

void apply_toml(TrainSettings& settings, const std::filesystem::path& file) {
  toml::table table;
  // A plan is read here too.
  constexpr std::int64_t longest = std::int64_t{4} << 20;
  const std::string text = read_file(file, longest);
  check_toml_limits(text, file.string(), {.most_values = 100'000});
  try {
    table = toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    throw bad_input(
        fmt::format("{} line {} is not TOML: {}", file.string(), error.source().begin.line, error.description()),
        "lines like: stages = 4", "mend the line");
  }
  for (const auto& [key, node] : table) {
    // A plan's file says besides what it expects.
    if (key.str() == "prediction" && node.is_table()) continue;
    const std::string where = fmt::format("{} line {}", file.string(), node.source().begin.line);
    bool known = false;
    visit_settings(settings, [&](SettingGroup, const char* name, auto& value, const char*) {
      if (key.str() != name) return;
      known = true;
      using Value = std::remove_cvref_t<decltype(value)>;
      if constexpr (std::same_as<Value, int>) {
        if ((key.str() == "microbatches" || key.str() == "ranks") && node.value_exact<std::string>() == "auto") {
          value = automatic_count;
          return;
        }
      }
      auto read = read_node<Value>(node);
      if (!read)
        throw bad_input(fmt::format("{}: {} is of another type", where, name), type_name<Value>(),
                        fmt::format("write it like: {} = {}", name, toml_value(value)));
      if constexpr (requires { holds_zero(*read); })
        if (holds_zero(*read))
          throw bad_input(fmt::format("{}: {} holds a zero byte", where, name), "a text without one", "remove it");
      value = std::move(*read);
    });
    if (!known) {
      const std::string nearest = nearest_setting(key.str());
      throw bad_input(fmt::format("{}: unknown key \"{}\"", where, key.str()), "a setting of penstock train",
                      nearest.empty() ? "correct the key (penstock train --help lists all)"
                                      : fmt::format("did you mean \"{}\"? (penstock train --help lists all)", nearest));
    }
  }
}

std::string to_toml(const TrainSettings& settings) {
  std::string text;
  std::optional<SettingGroup> last;
  visit_settings(settings, [&](SettingGroup group, const std::string& name, const auto& value, const char* meaning) {
    if (name == "out" || name == "resume" || name == "from-the-beginning" || name == "remeasure") return;
    if (last != group) text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", heading(group));
    last = group;
    text += fmt::format("{} = {}  # {}\n", name, toml_value(value), meaning);
  });
  return text;
}

void check_settings(const TrainSettings& settings) {
  if (settings.model == own_model)
    throw bad_input("a run whose network is a program's own", "a run of gpt, mlp or convnet",
                    "go on with it in the program that began it");
  if (settings.data.empty()) throw bad_input("no `data`", "a file or a folder", "name one in `data`");
  if (settings.out.empty()) throw bad_input("no `out`", "a folder for the run", "name one in `out`");
  check_measured_settings(settings);
}

void check_measured_settings(const TrainSettings& settings) {
  if (settings.data.empty()) throw bad_input("no `data`", "a file or a folder", "name one in `data`");
  check_one_of("model", settings.model, {"gpt", "mlp", "convnet"});
  check_one_of("data-kind", settings.data_kind, {"auto", "text", "tokens16", "tokens32", "images"});
  check_share("held-out", settings.held_out);
  check_share("dropout", settings.dropout);
  for (const auto& [name, value] : {std::pair<const char*, std::int64_t>{"context", settings.context},
                                    {"width", settings.width},
                                    {"heads", settings.heads}})
    check_between(name, value, 1, most);
  check_between("layers", settings.layers, 1, most_layers);
  // A built-in network has a first and a last layer beside these.
  TrainSettings whole = settings;
  whole.layers += 2;
  check_settings_without_folder(whole);
  if (settings.model == "gpt" && settings.width % settings.heads != 0)
    throw bad_input(fmt::format("{} heads do not divide the width {}", settings.heads, settings.width),
                    "a width that is a multiple of the heads", "change `heads` or `width`");
}

void check_run_settings(const TrainSettings& settings) {
  if (settings.out.empty()) throw bad_input("no `out`", "a folder for the run", "name one in `out`");
  check_settings_without_folder(settings);
}

namespace {

void check_settings_without_folder(const TrainSettings& settings) {
  check_one_of("optimizer", settings.optimizer, {"adamw", "sgd"});
  check_one_of("boundary-dtype", settings.boundary_dtype, {"same", "bf16"});
  check_one_of("precision", settings.precision, {"fp32", "bf16", "fp16"});
  check_share("momentum", settings.momentum);
  check_share("beta1", settings.beta1);
  check_share("beta2", settings.beta2);
  constexpr std::int64_t most_processes = 4096;
  constexpr double least_timeout_s = 0.1;
  check_between("processes", settings.processes, 1, most_processes);
  check_between("restarts", settings.restarts, 0, most);
  for (const auto& [name, value] :
       {std::pair{"peer-timeout", settings.peer_timeout}, {"join-timeout", settings.join_timeout}}) {
    constexpr double most_timeout_s = 1e6;
    check_at_least(name, value, least_timeout_s);
    if (value > most_timeout_s)
      throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at most {} s", most_timeout_s),
                      "lower " + field(name));
  }
  for (const auto& [name, value] : {std::pair<const char*, std::int64_t>{"stages", settings.stages},
                                    {"batch", settings.batch},
                                    {"steps", settings.steps},
                                    {"eval-samples", settings.eval_samples},
                                    {"keep", settings.keep}})
    check_between(name, value, 1, most);
  for (const auto& [name, value] : {std::pair<const char*, std::int64_t>{"warmup", settings.warmup},
                                    {"eval-every", settings.eval_every},
                                    {"checkpoint-every", settings.checkpoint_every}})
    check_between(name, value, 0, most);
  if (settings.microbatches != automatic_count) check_between("microbatches", settings.microbatches, 1, most);
  if (settings.ranks != automatic_count) check_between("ranks", settings.ranks, 0, 100'000);
  check_between("threads-per-rank", settings.threads_per_rank, 0, 1024);
  check_rates(settings);
  if (settings.recompute != "selected" && settings.recompute != "auto")
    static_cast<void>(recomputed_layers(settings.recompute, settings.layers));
  if (!settings.memory_limit.empty()) static_cast<void>(parse_bytes("`memory_limit`", settings.memory_limit));
  check_automatic(settings);
  check_replicas(settings);
  if (settings.epsilon == 0) throw bad_input("`epsilon` is 0", "more than 0", "raise it");
  // A TOML file, such as the run's own config.toml, holds no larger number.
  if (!std::in_range<std::int64_t>(settings.seed))
    throw bad_input(fmt::format("`seed` is {}", settings.seed),
                    fmt::format("at most {}", std::numeric_limits<std::int64_t>::max()), "take a smaller one");
  if (settings.microbatches > settings.batch)
    throw bad_input(fmt::format("{} microbatches of a batch of {}", settings.microbatches, settings.batch),
                    "at least one sample a microbatch", "lower `microbatches` or raise `batch`");
}

}  // namespace

}  // namespace penstock
