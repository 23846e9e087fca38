#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/run/monitor.h"
#include "penstock/run/train.h"

#include "commands.h"
#include "mistakes.h"
#include "processes.h"
#include "setting_options.h"
#include "standard_output.h"

namespace penstock::app {
namespace {

// What shells add to the number of the signal that ended a program.
constexpr int signal_exit_code = 128;

struct TrainOptions {
  TrainSettings settings;
  std::string config;
  std::string restart;  // file of all settings, of a process that the launcher has started again
  bool quiet = false;
  bool verbose = false;
  bool tensorboard = false;
  std::string prometheus;
};

void add_options(CLI::App& command, TrainOptions& options) {
  command.add_option("--config", options.config, "TOML file with any of these settings; flags win over it");
  command.add_option(restart_option, options.restart, "")->group("");
  command.add_flag("-q,--quiet", options.quiet, "Print nothing but what went wrong");
  command.add_flag("--verbose", options.verbose, "With --processes: every line of every process, with its rank");
  command.add_flag("--tensorboard", options.tensorboard,
                   "Also write the metrics as TensorBoard reads them, into the run's folder tensorboard/");
  command.add_option(
      "--prometheus", options.prometheus,
      "PORT or ADDRESS:PORT at which /metrics answers Prometheus while it trains; without an address loopback");
  add_setting_options(command, options.settings, [](SettingGroup, const std::string&) { return true; });
}

// A shape that is given and is the default all the same: the library cannot tell it from one that is not given.
void check_given_shape(const CLI::App& command, const TrainSettings& given) {
  const TrainSettings shaped = with_published_shape(given);
  const auto check = [&](const char* name, std::int64_t asked, std::int64_t published) {
    if (command.get_option(std::string("--") + name)->count() > 0 && asked != published)
      throw bad_input(fmt::format("{} is {}, that of the model's config.json is {}", field(name), asked, published),
                      "the shape of the published model", fmt::format("drop {}", field(name)));
  };
  check("layers", given.model.layers, shaped.model.layers);
  check("width", given.model.width, shaped.model.width);
  check("heads", given.model.heads, shaped.model.heads);
}

// Files first, flags on top: the command line is read twice, the second time over what the files say.
TrainSettings merge(const TrainOptions& first_reading, int argc, char** argv) {
  TrainOptions merged;
  const TrainSettings& flags = first_reading.settings;
  TrainSettings& settings = merged.settings;
  if (!first_reading.restart.empty()) {
    apply_toml(settings, first_reading.restart);
    return settings;
  }
  if (!first_reading.config.empty()) apply_toml(settings, first_reading.config);
  const bool resume = flags.output.resume || settings.output.resume;
  const std::string out = flags.output.folder.empty() ? settings.output.folder : flags.output.folder;
  // A run that goes on keeps its settings where nobody says otherwise.
  if (resume && !out.empty() && std::filesystem::exists(std::filesystem::path(out) / "config.toml")) {
    settings = settings_of_run(out);
    if (!first_reading.config.empty()) apply_toml(settings, first_reading.config);
  }
  const std::string plan = flags.planning.plan.empty() && !resume ? settings.planning.plan : flags.planning.plan;
  if (!plan.empty()) apply_toml(settings, plan);
  settings.planning.plan = plan.empty() ? settings.planning.plan : plan;
  CLI::App again;
  CLI::App* command = again.add_subcommand("train");
  add_options(*command, merged);
  again.parse(argc, argv);
  if (settings.output.resume && settings.data.paths.empty() && !settings.output.folder.empty() &&
      settings.model.kind != ModelKind::Own)
    throw bad_input(fmt::format("{} holds no run to go on with", settings.output.folder),
                    "a folder that penstock train has written, or --data for a run that begins there",
                    "check --out, or name the data");
  check_given_shape(*command, settings);
  return settings;
}

std::string text_of(const TrainSettings& settings, const TrainResult& result) {
  std::string text = fmt::format("\n{}\n", stage_table(result));
  if (!result.links.empty()) text += fmt::format("{}\n", link_table(result.links));
  if (result.median_step_time.count > 0)
    text += fmt::format("a step took {} (median), {:.0f} tokens/s\n", to_string(result.median_step_time),
                        result.tokens_per_s);
  else
    text += fmt::format("nothing was left to do: the run has made its {} steps; raise --steps to train further\n",
                        result.step);
  if (result.updated_first > 0)
    text += fmt::format("{} of {} were made before their norm was known, {} of them taken back\n", result.updated_first,
                        counted(result.steps_made, "update"), result.taken_back);
  if (!result.saving.empty()) text += fmt::format("{}\n", result.saving);
  if (!result.planned.empty()) text += fmt::format("\n{}\n", result.planned);
  if (!result.prediction.empty())
    text +=
        fmt::format("\nthe last step beside its prediction from the steps before (drawn in {}/timeline.html):\n{}\n",
                    settings.output.folder, result.prediction);
  if (!std::isnan(result.held_out_loss)) text += fmt::format("held-out loss {:.4f} nats", result.held_out_loss);
  if (result.bigram_loss) text += fmt::format(" a byte; a byte bigram model reaches {:.4f}", *result.bigram_loss);
  if (!std::isnan(result.held_out_loss)) text += "\n";
  return text + fmt::format(
                    "everything is in {}: metrics.jsonl, timeline.json (open it in ui.perfetto.dev), config.toml, "
                    "checkpoints/\n",
                    settings.output.folder);
}

std::string text_of_stop(const TrainSettings& settings, const TrainResult& result) {
  if (result.step < 0) return "stopped before the first step: nothing was there to be saved\n";
  return fmt::format("stopped after step {}, which is saved; go on with: penstock train --resume --out {}\n",
                     result.step, settings.output.folder);
}

int run(const CLI::App& app, const TrainOptions& options, int argc, char** argv) {
  const TrainSettings settings = with_published_shape(merge(options, argc, argv));
  const std::optional<ProcessSettings> processes = own_process();
  if (!processes && settings.processes.count > 1) {
    check_settings(settings);
    // The first of them will listen; a port that is taken is said before any is started.
    static_cast<void>(Monitor({.tensorboard_folder = {}, .prometheus = options.prometheus}));
    return launch_processes(settings, {argv + 1, argv + argc}, options.verbose);
  }
  watch_stop_signals(processes ? Repeats::Ignore : Repeats::Kill);
  Progress progress(print_on, ::isatty(STDOUT_FILENO) == 1);
  TrainObserver observer;
  if (!options.quiet && (!processes || processes->process == 0)) observer = progress.observer();
  if (observer.on_note)
    observer.on_note = [&, note = observer.on_note](const std::string& text) { note(in_options(app, text)); };
  observer.stop_signal = stop_signal;
  if (processes) observer.on_joined = tell_joined;
  std::optional<Monitor> monitor;
  if (!processes || processes->process == 0) {
    const std::filesystem::path events = std::filesystem::path(settings.output.folder) / "tensorboard";
    monitor.emplace(MonitorSettings{options.tensorboard ? events : "", options.prometheus});
    observer = monitor->watching(std::move(observer));
  }
  TrainResult result;
  try {
    result = train(settings, observer, processes);
  } catch (...) {
    progress.finish();
    throw;
  }
  progress.finish();
  const int code = result.stop_signal == 0 ? 0 : signal_exit_code + result.stop_signal;
  if (!result.is_first_process) return code;
  if (result.stop_signal != 0)
    print_on(text_of_stop(settings, result));
  else if (!options.quiet)
    print_on(text_of(settings, result));
  return code;
}

}  // namespace

Command add_train_command(CLI::App& app, int argc, char** argv) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Trains a network cut into stages, or goes on training one");
  add_options(*command, *options);
  return [options, argc, argv, &app] { return run(app, *options, argc, argv); };
}

}  // namespace penstock::app
