#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "penstock/run/train.h"

namespace penstock {
namespace {

constexpr double redraw_ms = 100;  // ten times a second is as much as an eye follows
constexpr double plain_line_ms = 5000;
constexpr int bar_cells = 24;

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string short_count(double count) {
  if (count >= 1e9) return fmt::format("{:.1f}B", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.1f}M", count / 1e6);
  if (count >= 1e3) return fmt::format("{:.1f}k", count / 1e3);
  return fmt::format("{:.0f}", count);
}

}  // namespace

Progress::Progress(std::FILE* stream)
    : Progress(
          [stream](std::string_view text) {
            std::fwrite(text.data(), 1, text.size(), stream);
            std::fflush(stream);
          },
          ::isatty(::fileno(stream)) == 1) {}

Progress::Progress(Write write, bool terminal) : write_(std::move(write)), terminal_(terminal) {}

TrainObserver Progress::observer() {
  TrainObserver observer;
  observer.on_start = [this](const TrainStart& about) { start(about); };
  observer.on_step = [this](const StepMetrics& metrics) { step(metrics); };
  observer.on_note = [this](const std::string& text) { note(text); };
  return observer;
}

void Progress::start(const TrainStart& start) {
  first_step_ = start.first_step;
  steps_ = start.steps;
  started_ = clock_.now();
  const std::string replicas =
      start.replicas == 1 ? "" : fmt::format(" ({} replicas of {})", start.replicas, start.ranks / start.replicas);
  note(fmt::format("{} parameters in {} layers on {} rank{}{}, {} thread{} each; {} samples to learn from, {} held out",
                   short_count(static_cast<double>(start.parameters)), start.layers, start.ranks,
                   start.ranks == 1 ? "" : "s", replicas, start.threads_per_rank,
                   start.threads_per_rank == 1 ? "" : "s", short_count(static_cast<double>(start.train_samples)),
                   short_count(static_cast<double>(start.held_out_samples))));
  const int cores = static_cast<int>(std::thread::hardware_concurrency()) / std::max(1, start.ranks_here);
  if (start.first_step == 0 && start.threads_per_rank == 1 && cores > 1)
    note(fmt::format(
        "one thread each gives the same numbers on any number of stages; threads-per-rank {0} may be up to {0} "
        "times as fast here, with other last digits",
        cores));
}

std::string Progress::bar(const StepMetrics& metrics) const {
  const double share = static_cast<double>(metrics.step) / static_cast<double>(std::max<std::int64_t>(1, steps_));
  const auto done = static_cast<double>(metrics.step - first_step_);
  const Milliseconds left =
      (clock_.now() - started_) * (static_cast<double>(steps_ - metrics.step) / std::max(1.0, done));
  std::string facts =
      fmt::format("step {}/{}  loss {:.4f}  {} tokens/s  {:.0f}% busy  {} left", metrics.step, steps_, metrics.loss,
                  short_count(metrics.tokens_per_s), metrics.utilisation * 100, to_string(left));
  if (!terminal_) return facts;
  const int cells = std::min(bar_cells, terminal_columns() - static_cast<int>(facts.size()) - 5);
  if (cells < 4) return facts.substr(0, static_cast<std::size_t>(terminal_columns() - 1));
  std::string drawn;
  const int full = static_cast<int>(share * cells);
  for (int cell = 0; cell < cells; ++cell) drawn += cell < full ? "█" : "░";
  return fmt::format("{} {}", drawn, facts);
}

void Progress::step(const StepMetrics& metrics) {
  const Milliseconds now = clock_.now();
  const bool edge = metrics.step == first_step_ + 1 || metrics.step == steps_;
  if (edge || (now - last_shown_).count >= (terminal_ ? redraw_ms : plain_line_ms)) {
    last_shown_ = now;
    if (terminal_) {
      write_("\r\x1b[2K" + bar(metrics));
      bar_shown_ = true;
    } else {
      write_(bar(metrics) + "\n");
    }
  }
  if (metrics.held_out_loss) note(fmt::format("step {}: held-out loss {:.4f}", metrics.step, *metrics.held_out_loss));
}

void Progress::note(const std::string& text) {
  write_((bar_shown_ ? "\r\x1b[2K" : "") + text + "\n");
  bar_shown_ = false;
}

void Progress::finish() {
  write_(bar_shown_ ? "\n" : "");
  bar_shown_ = false;
}

std::string stage_table(const TrainResult& result) {
  std::string table = fmt::format("{:>5}  {:>4}  {:<8}  {:>9}  {:>10}  {:>5}  {:>11}  {:>10}\n", "stage", "rank",
                                  "device", "layers", "parameters", "busy", "peak memory", "sent");
  for (const StageSummary& stage : result.stages) {
    table += fmt::format("{:>5}  {:>4}  {:<8}  {:>9}  {:>10}  {:>4.0f}%  {:>11}  {:>10}\n", stage.stage, stage.rank,
                         stage.device, fmt::format("{}-{}", stage.first_layer, stage.last_layer),
                         short_count(static_cast<double>(stage.parameters)), stage.busy_share * 100,
                         to_string(stage.peak_memory), to_string(stage.sent));
  }
  return table;
}

}  // namespace penstock
