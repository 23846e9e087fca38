#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/report/answers.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/simulate.h"

#include "mistakes.h"
#include "output_file.h"
#include "schedule_commands.h"
#include "schedule_input.h"

namespace penstock::app {
namespace {

struct ShowOptions {
  ScheduleInput schedule;
  CostInput cost;
  std::string format;  // empty: as the output's name says
  std::string colour = "auto";
  std::string output;
  bool lowered = false;
  int posted_receives = 0;
};

struct VerifyCommandOptions {
  std::string file;
  std::optional<int> memory_cap;
  bool blocking_sends = false;
  bool any_order = false;
  bool json = false;
};

struct CompareOptions {
  int ranks = 0;
  int microbatches = 0;
  std::optional<int> memory_cap;
  CostInput cost;
  int steps = 1;
  bool json = false;
};

void write_out(const std::string& text, const std::string& output) {
  if (output.empty())
    fmt::print("{}", text);
  else
    write_file_atomically(output, text);
}

/// The grid as wide as the terminal, or whole where it goes to a file or a pipe.
GridOptions grid_options(const ShowOptions& options) {
  const bool terminal = options.output.empty() && isatty(STDOUT_FILENO) == 1;
  GridOptions grid;
  const char* no_colour = std::getenv("NO_COLOR");  // NOLINT(concurrency-mt-unsafe): before any thread
  const bool wanted = no_colour == nullptr || *no_colour == '\0';
  grid.colour = options.colour == "always" || (options.colour == "auto" && terminal && wanted);
  winsize size{};
  if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) grid.width = size.ws_col;
  return grid;
}

/// "ZB-V" for the name of a generator, the file's name for a file.
std::string title_of(const std::string& source) {
  if (const ScheduleFamily* family = find_schedule_family(source)) return std::string(family->title);
  return std::filesystem::path(source).filename().string();
}

const std::vector<OutputFormat>& drawn_formats() {
  static const std::vector<OutputFormat> formats{
      {"text", ".txt"}, {"csv", ".csv"}, {"svg", ".svg"}, {"html", ".html"}, {"trace", ".json"}};
  return formats;
}

int show(const ShowOptions& options) {
  const std::string format = format_of_output(options.output, options.format, drawn_formats());
  VerifiedSchedule schedule = verify(read_schedule(options.schedule), to_look_at);
  if (options.lowered) schedule = lower(schedule, {.posted_receives = options.posted_receives});
  if (format == "csv") {
    write_out(to_csv(schedule.get()), options.output);
    return 0;
  }
  const std::string title =
      fmt::format("{} on {}, {}", title_of(options.schedule.source), counted(schedule->ranks(), "rank"),
                  counted(schedule->microbatches, "microbatch"));
  const std::string unit = is_unit_cost(options.cost) ? "units" : "ms";
  const Timeline timeline = simulate(schedule, read_cost(options.cost, schedule->stages));
  if (format == "svg")
    write_out(to_svg(timeline, {title, unit}), options.output);
  else if (format == "html")
    write_out(to_html({{options.schedule.source, timeline}}, {title, unit}), options.output);
  else if (format == "trace")
    write_out(to_chrome_trace(timeline, options.schedule.source), options.output);
  else
    write_out(to_grid(timeline, grid_options(options)), options.output);
  return 0;
}

/// ", 4 of them with two holders …" where a bidirectional schedule or replicas keep copies of stages, and nothing
/// elsewhere.
std::string note_on_holders(const Schedule& schedule) {
  const auto& holders = schedule.placement.holders;
  const auto copied = std::count_if(holders.begin(), holders.end(), [](const auto& ranks) { return ranks.size() > 1; });
  std::size_t most = 0;
  for (const auto& ranks : holders) most = std::max(most, ranks.size());
  return copied == 0 ? ""
                     : fmt::format(" ({} held by {} ranks, whose gradients must be added)", copied,
                                   most == 2 ? "two" : fmt::format("up to {}", most));
}

int check(const VerifyCommandOptions& options) {
  const std::string text = read_file(options.file);
  try {
    VerifyOptions wanted;
    wanted.sends = options.blocking_sends ? SendMode::Blocking : SendMode::NonBlocking;
    wanted.accumulation = options.any_order ? Accumulation::AnyOrder : Accumulation::InOrder;
    wanted.memory_cap = options.memory_cap;
    const VerifiedSchedule schedule = verify(parse_schedule(text), wanted);
    // Only sends and receives can block: a schedule without them is held against those that it would get.
    static_cast<void>(verify(lower(schedule).get(), wanted));
    if (options.json) {
      const nlohmann::ordered_json object = {{"file", options.file},
                                             {"correct", true},
                                             {"ranks", schedule->ranks()},
                                             {"stages", schedule->stages},
                                             {"microbatches", schedule->microbatches}};
      fmt::print("{}\n", object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
      return 0;
    }
    fmt::print("{}: correct: {}, {}{}, {}\n", options.file, counted(schedule->ranks(), "rank"),
               counted(schedule->stages, "stage"), note_on_holders(schedule.get()),
               counted(schedule->microbatches, "microbatch"));
    return 0;
  } catch (const Error& error) {
    // Here the neighbourhood in the grid, which follows the first line, is what was asked for.
    fmt::print(stderr, "penstock: {}: {}\n", options.file, error.what());
    constexpr int bad_input_exit_code = 2;
    return bad_input_exit_code;
  }
}

SimulationAnswer play_family(const ScheduleFamily& family, const CompareOptions& options) {
  const VerifiedSchedule schedule = verify(make_schedule(family.name, options.ranks, options.microbatches),
                                           {.sends = SendMode::NonBlocking, .memory_cap = options.memory_cap});
  const Cost cost = read_cost(options.cost, schedule->stages);
  SimulationAnswer answer{std::string(family.name), schedule->stages,
                          schedule->microbatches,   summarise(simulate(schedule, cost)),
                          cost.memory_caps,         {}};
  if (options.steps != 1) answer.row = simulate_in_a_row(schedule, cost, options.steps);
  return answer;
}

/// Why none of the schedules could be compared: the cap, and the smallest that one keeps within, or what the first of
/// them was refused for.
Error nothing_to_compare(const CompareOptions& options, const ComparisonAnswer& comparison) {
  int smallest = std::numeric_limits<int>::max();
  std::string_view name;
  for (const ScheduleFamily& family : schedule_families()) {
    if (family.name == "forward-only" || options.ranks % family.ranks_multiple != 0) continue;
    const auto peaks = peak_activations(make_schedule(family.name, options.ranks, options.microbatches));
    const int peak = *std::max_element(peaks.begin(), peaks.end());
    if (peak >= smallest) continue;
    smallest = peak;
    name = family.name;
  }
  if (!options.memory_cap || smallest <= *options.memory_cap)
    return {ErrorKind::BadInput, comparison.refused.front().reason};
  return bad_input(fmt::format("--memory-cap {}, which no schedule keeps within", *options.memory_cap),
                   fmt::format("at least {}, the smallest that one does ({})", smallest, name), "raise --memory-cap");
}

int compare(const CompareOptions& options) {
  if (options.ranks < 1 || options.microbatches < 1)
    throw bad_input(
        fmt::format("{} and {}", counted(options.ranks, "rank"), counted(options.microbatches, "microbatch")),
        "at least 1 of each", "raise the smaller number");
  // What is wrong with the costs themselves is wrong for all schedules, and is said at once.
  validate(read_cost(options.cost, 1));
  ComparisonAnswer comparison;
  for (const ScheduleFamily& family : schedule_families()) {
    // It does a third of the others' work, and would always win.
    if (family.name == "forward-only") continue;
    try {
      comparison.answers.push_back(play_family(family, options));
    } catch (const Error& error) {
      const std::string reason = error.what();
      comparison.refused.push_back({std::string(family.name), reason.substr(0, reason.find('\n'))});
    }
  }
  if (comparison.answers.empty()) throw nothing_to_compare(options, comparison);
  sort_by_bubble(comparison);
  fmt::print("{}", options.json ? to_json(comparison) : to_text(comparison));
  if (!options.json && is_unit_cost(options.cost)) fmt::print("\n{}\n", unit_cost_text);
  return 0;
}

std::string stages_words(const ScheduleFamily& family) {
  if (!family.stages_per_rank_varies) return fmt::format("{}", family.stages_per_rank);
  return family.stages_multiple > 1 ? fmt::format("any multiple of {}", family.stages_multiple) : "any";
}

int list(bool json) {
  if (json) {
    nlohmann::ordered_json object = {{"schedules", nlohmann::ordered_json::array()}};
    for (const ScheduleFamily& family : schedule_families())
      object["schedules"].push_back({{"schedule", family.name},
                                     {"title", family.title},
                                     {"paper", family.paper},
                                     {"stages_per_rank", family.stages_per_rank},
                                     {"stages_per_rank_varies", family.stages_per_rank_varies},
                                     {"ranks_multiple", family.ranks_multiple},
                                     {"bidirectional", family.bidirectional},
                                     {"bubble", family.bubble},
                                     {"peak_activations", family.memory}});
    fmt::print("{}\n", object.dump(2));
    return 0;
  }
  fmt::print("{:<18}  {:<16}  {:<28}  {}\n", "schedule", "stages per rank", "peak activations", "published in");
  for (const ScheduleFamily& family : schedule_families())
    fmt::print("{:<18}  {:<16}  {:<28}  {}\n", family.name, stages_words(family), family.memory,
               family.paper.empty() ? "-" : family.paper);
  fmt::print(
      "\np: ranks, m: microbatches, v: stages per rank. `penstock schedule show NAME --ranks 4 --microbatches 8` draws "
      "one, `penstock schedule compare` plays them all.\n");
  return 0;
}

Command add_list(CLI::App& parent) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = parent.add_subcommand("list", "Names every published schedule: its sizes, memory and paper");
  command->add_flag("--json", *json, "Answer as JSON");
  return [json] { return list(*json); };
}

Command add_show(CLI::App& parent) {
  auto options = std::make_shared<ShowOptions>();
  CLI::App* command =
      parent.add_subcommand("show", "Draws a schedule: in the terminal, as a picture, a page or a trace");
  add_schedule_options(*command, options->schedule);
  add_cost_options(*command, options->cost);
  command
      ->add_option("--format", options->format,
                   "text, csv, svg, html or trace (JSON for Perfetto); by default as --output ends (.txt, .csv, .svg, "
                   ".html, .json), or text")
      ->check(one_of({"text", "csv", "svg", "html", "trace"}), "");
  command
      ->add_option("--colour,--color", options->colour,
                   "auto, always or never, for text; auto: in a terminal, unless NO_COLOR is set")
      ->check(one_of({"auto", "always", "never"}), "")
      ->capture_default_str();
  CLI::Option* lower = command->add_flag("--lower", options->lowered, "Add the sends and receives (for csv)");
  command
      ->add_option("--posted-receives", options->posted_receives,
                   "With --lower: so many receives are posted ahead; 0: each right before its action")
      ->needs(lower)
      ->capture_default_str();
  command->add_option("-o,--output", options->output, "File to write, in place of the terminal");
  return [options] { return show(*options); };
}

Command add_verify(CLI::App& parent) {
  auto options = std::make_shared<VerifyCommandOptions>();
  CLI::App* command = parent.add_subcommand("verify", "Proves that a schedule is complete and cannot deadlock");
  command->add_option("file", options->file, "CSV file of a schedule")->required();
  command->add_option("--memory-cap", options->memory_cap,
                      "Most activations that a rank may hold, each of one microbatch on one stage");
  command->add_flag("--blocking-sends", options->blocking_sends,
                    "Prove it for sends that wait for their receives, as NCCL's may");
  command->add_flag("--any-order", options->any_order,
                    "Let gradients add up in any order, as schedules of other engines may");
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return check(*options); };
}

Command add_compare(CLI::App& parent) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App* command =
      parent.add_subcommand("compare", "Plays every published schedule under the same costs, best first");
  command->add_option("--ranks", options->ranks, "Devices")->required();
  command->add_option("--microbatches", options->microbatches, "Microbatches of a step")->required();
  command->add_option("--memory-cap", options->memory_cap,
                      "Most activations that a rank may hold, each of one microbatch on one stage");
  add_cost_options(*command, options->cost);
  command
      ->add_option(
          "--steps", options->steps,
          "Also so many steps in a row, in which no rank waits between them; the order is then that of their pace")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return compare(*options); };
}

}  // namespace

Command add_schedule_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("schedule", "Schedules as data: list, show, verify, compare, synth");
  command->require_subcommand(1);
  const std::vector<std::pair<std::string, Command>> commands{{"list", add_list(*command)},
                                                              {"show", add_show(*command)},
                                                              {"verify", add_verify(*command)},
                                                              {"compare", add_compare(*command)},
                                                              {"synth", add_synth(*command)}};
  return [command, commands] {
    for (const auto& [name, run] : commands)
      if (command->got_subcommand(name)) return run();
    throw InvariantViolation("a subcommand of schedule was parsed that does not exist");
  };
}

}  // namespace penstock::app
