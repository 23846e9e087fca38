#include "run/run_folder.h"

#include <cerrno>
#include <cmath>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/types.h"
#include "penstock/models/config.h"
#include "penstock/models/write_model.h"

#include "run/published.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// A hundred million steps.
constexpr std::int64_t longest_metrics = std::int64_t{32} << 30;

fs::path metrics_file(const fs::path& out) { return out / "metrics.jsonl"; }
fs::path events_file(const fs::path& out) { return out / "events.jsonl"; }

bool holds_run(const fs::path& out) {
  // What cannot be looked at (a name that is too long) holds no run: making the folder says what is wrong with it.
  const auto there = [](const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
  };
  return there(RunFolder::config(out)) || there(metrics_file(out)) || there(out / "checkpoints");
}

nlohmann::ordered_json counts(const std::vector<Bytes>& sizes) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Bytes size : sizes) list.push_back(size.count);
  return list;
}

// To the microsecond: with many ranks a line should not spend its length on rounding.
nlohmann::ordered_json times_of(const std::vector<Milliseconds>& times) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Milliseconds time : times) list.push_back(std::round(time.count * 1000) / 1000);
  return list;
}

std::string line_of(const StepMetrics& metrics) {
  // The ordered kind keeps the step in front; nlohmann prints doubles so that they read back to the same bits.
  nlohmann::ordered_json line{{"step", metrics.step},
                              {"time", to_string(wall_time_now())},
                              {"loss", metrics.loss},
                              {"step_ms", metrics.step_time.count},
                              {"data_ms", metrics.data_time.count},
                              {"tokens_per_s", metrics.tokens_per_s},
                              {"tokens", metrics.tokens},
                              {"utilisation", metrics.utilisation},
                              {"learning_rate", metrics.learning_rate},
                              {"grad_norm", metrics.gradient_norm},
                              {"peak_memory_bytes", counts(metrics.peak_memory)}};
  if (!metrics.peak_activations.empty()) line["peak_activation_bytes"] = counts(metrics.peak_activations);
  if (!metrics.rank_busy.empty()) {
    line["rank_busy_ms"] = times_of(metrics.rank_busy);
    line["rank_span_ms"] = times_of(metrics.rank_span);
    line["rank_link_ms"] = times_of(metrics.rank_link);
  }
  if (metrics.checkpoint_time.count > 0) line["checkpoint_ms"] = metrics.checkpoint_time.count;
  if (metrics.updated_first) line["updated_first"] = true;
  if (metrics.taken_back) line["taken_back"] = true;
  if (metrics.skipped) {
    // JSON has no word for what is not finite.
    line["grad_norm"] = nullptr;
    line["skipped"] = true;
  }
  if (metrics.planned_step_time) {
    line["planned_step_ms"] = metrics.planned_step_time->count;
    line["planned_utilisation"] = metrics.planned_utilisation;
  }
  if (metrics.held_out_loss) {
    line["held_out_loss"] = *metrics.held_out_loss;
    line["evaluation_ms"] = metrics.evaluation_time.count;
  }
  return line.dump() + '\n';
}

// \param held_out_loss NaN: none.
std::string event_line(std::int64_t step, std::string_view kind, std::string_view text,
                       double held_out_loss = std::numeric_limits<double>::quiet_NaN()) {
  nlohmann::ordered_json line{{"time", to_string(wall_time_now())}, {"step", step}, {"event", kind}, {"text", text}};
  if (!std::isnan(held_out_loss)) line["held_out_loss"] = held_out_loss;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

struct KeptLines {
  std::string text;
  std::int64_t tokens = 0;  // as the last one says that has a number of them
};

// The lines of the first `first_step` updates. One that a kill has torn, or that a disk has damaged, is left out.
KeptLines lines_until(const std::string& text, std::int64_t first_step) {
  KeptLines kept;
  std::istringstream lines(text);
  constexpr std::size_t longest = std::size_t{1} << 20;
  for (std::string line; std::getline(lines, line);) {
    if (line.size() > longest) continue;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json["step"].get<std::int64_t>() > first_step) continue;
    kept.text += line + '\n';
    if (json.contains("tokens") && json["tokens"].is_number_integer()) kept.tokens = json["tokens"].get<std::int64_t>();
  }
  return kept;
}

[[noreturn]] void throw_errno(const std::string& what, const fs::path& path) {
  throw run_failed(fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(errno)),
                   "a place that can be written", "check the path, its permissions and the space left");
}

// One write a line: a kill leaves whole lines. A disk that fills up takes a part, and gives its reason for the rest.
void write_line(int descriptor, const fs::path& file, const std::string& line) {
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t written = ::write(descriptor, line.data() + done, line.size() - done);
    if (written < 0 && errno != EINTR) throw_errno("write", file);
    if (written > 0) done += static_cast<std::size_t>(written);
  }
}

int open_to_append(const fs::path& file) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_errno("create", file);
  return descriptor;
}

}  // namespace

RunFolder::RunFolder(fs::path out, bool resume) : out_(std::move(out)) {
  std::error_code ignored;
  if (fs::exists(out_, ignored) && !fs::is_directory(out_, ignored))
    throw bad_input(fmt::format("`out` {} is a file", out_.string()), "a folder", "choose another `out`");
  if (!resume && holds_run(out_))
    throw bad_input(fmt::format("`out` {} holds another run", out_.string()), "a new or empty folder",
                    "choose another `out`, or go on with that run with `resume`");
}

RunFolder::~RunFolder() {
  if (events_ >= 0) ::close(events_);
  if (metrics_ >= 0) ::close(metrics_);
  if (lock_ >= 0) ::close(lock_);
}

void RunFolder::open(const TrainSettings& resolved, std::int64_t first_step) {
  std::error_code failure;
  fs::create_directories(out_, failure);
  if (failure)
    throw bad_input(fmt::format("cannot make the folder {}: {}", out_.string(), failure.message()),
                    "a folder that can be made", "choose another `out`");
  const fs::path lock_file = out_ / ".lock";
  lock_ = ::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) throw_errno("create", lock_file);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0)
    throw bad_input(fmt::format("another process trains in {}", out_.string()), "a folder of one's own",
                    "wait for it, stop it, or choose another `out`");
  const fs::path metrics = metrics_file(out_);
  if (fs::exists(metrics)) {
    const KeptLines kept = lines_until(read_file(metrics, longest_metrics), first_step);
    write_file_atomically(metrics, kept.text);
    tokens_ = kept.tokens;
  }
  write_file_atomically(config(out_), to_toml(resolved));
  metrics_ = open_to_append(metrics);
  events_ = open_to_append(events_file(out_));
}

void RunFolder::keep_model(const fs::path& folder) const {
  const fs::path kept = kept_model(out_);
  if (!fs::exists(kept / config_file)) carry_model_files(folder, kept);
}

void RunFolder::keep_plan(const Plan& plan, const fs::path& source) const {
  const fs::path kept = out_ / "plan.toml";
  std::error_code not_there;
  if (!fs::equivalent(source, kept, not_there)) save_plan(plan, kept);
}

void RunFolder::append(const StepMetrics& metrics) { write_line(metrics_, metrics_file(out_), line_of(metrics)); }

void RunFolder::tell(std::int64_t step, std::string_view kind, std::string_view text) {
  write_line(events_, events_file(out_), event_line(step, kind, text));
}

void RunFolder::tell_end(std::int64_t step, std::string_view text, double held_out_loss) {
  write_line(events_, events_file(out_), event_line(step, "end", text, held_out_loss));
}

void RunFolder::sync_metrics() {
  if (::fsync(metrics_) != 0) throw_errno("sync", metrics_file(out_));
}

}  // namespace penstock
