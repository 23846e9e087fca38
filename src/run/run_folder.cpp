#include "run/run_folder.h"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sstream>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/wall_time.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// A hundred million steps.
constexpr std::int64_t longest_metrics = std::int64_t{32} << 30;

fs::path metrics_file(const fs::path& out) { return out / "metrics.jsonl"; }

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

std::string line_of(const StepMetrics& metrics) {
  // The ordered kind keeps the step in front; nlohmann prints doubles so that they read back to the same bits.
  nlohmann::ordered_json line{{"step", metrics.step},
                              {"time", to_string(wall_time_now())},
                              {"loss", metrics.loss},
                              {"step_ms", metrics.step_time.count},
                              {"tokens_per_s", metrics.tokens_per_s},
                              {"tokens", metrics.tokens},
                              {"utilisation", metrics.utilisation},
                              {"learning_rate", metrics.learning_rate},
                              {"grad_norm", metrics.gradient_norm},
                              {"peak_memory_bytes", counts(metrics.peak_memory)}};
  if (!metrics.peak_activations.empty()) line["peak_activation_bytes"] = counts(metrics.peak_activations);
  if (metrics.skipped) {
    // JSON has no word for what is not finite.
    line["grad_norm"] = nullptr;
    line["skipped"] = true;
  }
  if (metrics.planned_step_time) {
    line["planned_step_ms"] = metrics.planned_step_time->count;
    line["planned_utilisation"] = metrics.planned_utilisation;
  }
  if (metrics.held_out_loss) line["held_out_loss"] = *metrics.held_out_loss;
  return line.dump() + '\n';
}

struct KeptLines {
  std::string text;
  std::int64_t tokens = 0;  // as the last one says that has a number of them
};

// The lines of the first `first_step` updates. One that a kill has torn, or that a disk has damaged, is left out.
KeptLines lines_until(const std::string& text, std::int64_t first_step) {
  KeptLines kept;
  std::istringstream lines(text);
  constexpr std::size_t longest = 65'536;
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
  metrics_ = ::open(metrics.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (metrics_ < 0) throw_errno("create", metrics);
}

void RunFolder::append(const StepMetrics& metrics) {
  // One write a line: a kill leaves whole lines. A disk that fills up takes a part, and gives its reason for the rest.
  const std::string line = line_of(metrics);
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t written = ::write(metrics_, line.data() + done, line.size() - done);
    if (written < 0 && errno != EINTR) throw_errno("write", metrics_file(out_));
    if (written > 0) done += static_cast<std::size_t>(written);
  }
}

void RunFolder::sync_metrics() {
  if (::fsync(metrics_) != 0) throw_errno("sync", metrics_file(out_));
}

}  // namespace penstock
