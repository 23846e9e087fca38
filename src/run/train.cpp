#include "penstock/run/train.h"

#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <utility>

#include <c10/util/Exception.h>

#include "penstock/base/error.h"
#include "penstock/base/limits.h"
#include "penstock/base/listening.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/run/trainer.h"
#include "penstock/transport/c10d.h"

#include "run/automatic.h"
#include "run/job.h"
#include "run/model.h"
#include "run/run.h"
#include "run/run_folder.h"

namespace penstock {
namespace {

using MakeJob = std::function<Job(const TrainSettings&)>;

TrainResult run(const TrainSettings& settings, const TrainObserver& observer, ProcessGroup* group,
                const MakeJob& make_job) {
  try {
    return Run(settings, observer, group, make_job)();
  } catch (const c10::Error& error) {
    // The pipeline has words of its own: what is left is a minibatch that is too large to be cut.
    const std::string reason = error.what_without_backtrace();
    throw run_failed(reason.substr(0, reason.find('\n')), "a minibatch that libtorch can hold",
                     "where memory ran out, lower `batch` or `context`");
  }
}

TrainResult stopped_before_the_first_step(const ProcessSettings& processes, int signal) {
  TrainResult result;
  result.step = -1;
  result.stop_signal = signal;
  result.is_first_process = processes.process == 0;
  return result;
}

TrainResult train_job(const TrainSettings& settings, const TrainObserver& observer,
                      const std::optional<ProcessSettings>& processes, const MakeJob& make_job) {
  if (!settings.listen.empty()) check_own_address("`listen`", settings.listen);
  const bool alone = !processes || processes->processes == 1;
  check_limits(settings, alone ? 1 : processes->processes);
  if (is_automatic(settings)) {
    if (!alone)
      throw bad_input(fmt::format("auto in one of {} processes", processes->processes),
                      "a plan, where several processes share a run",
                      "write one with penstock plan -o plan.toml and give it with `plan`");
    return run(choose_automatic(settings, make_job(settings), observer.on_note), observer, nullptr, make_job);
  }
  if (alone) return run(settings, observer, nullptr, make_job);
  ProcessSettings own = *processes;
  // What no schedule can be made of is refused before the processes come together.
  own.ranks = make_run_schedule(settings)->ranks();
  own.peer_timeout = Milliseconds{settings.peer_timeout * 1000};
  own.join_timeout = Milliseconds{settings.join_timeout * 1000};
  own.own_address = settings.listen;
  const auto [first, end] = ranks_of_process(own.process, own.processes, own.ranks);
  for (std::size_t rank = first.index(); rank < end.index() && !settings.devices.empty(); ++rank)
    own.devices.push_back(settings.devices[rank % settings.devices.size()]);
  own.asked_to_stop = [&observer] { return asked_to_stop(observer); };
  std::optional<ProcessGroup> joined;
  try {
    joined.emplace(own);
  } catch (const StoppedWhileJoining& stopped) {
    return stopped_before_the_first_step(own, stopped.stop_signal());
  } catch (const Error& error) {
    // What failed may have failed because others were asked too, and have left.
    const int signal = asked_to_stop(observer);
    if (signal == 0 || error.kind() == ErrorKind::BadInput) throw;
    return stopped_before_the_first_step(own, signal);
  }
  if (observer.on_joined) observer.on_joined();
  ProcessGroup& group = *joined;
  try {
    return run(settings, observer, &group, make_job);
  } catch (const std::exception& error) {
    // Whatever ends one process ends all, in its words.
    group.abort(error.what());
    throw;
  }
}

}  // namespace

TrainResult train(const TrainSettings& settings, const TrainObserver& observer,
                  const std::optional<ProcessSettings>& processes) {
  check_settings(settings);
  return train_job(settings, observer, processes, [](const TrainSettings& all) { return job_of(all); });
}

TrainResult train(Training training, const TrainSettings& settings, const TrainObserver& observer,
                  const std::optional<ProcessSettings>& processes) {
  const Job job = job_of(std::move(training));
  const TrainSettings own = settings_for(job.network, settings);
  check_run_settings(own);
  return train_job(own, observer, processes, [&job](const TrainSettings&) { return Job(job); });
}

void check_limits(const TrainSettings& settings, int processes) {
  // Data, metrics, the lock, standard streams; and of each stage a file of a checkpoint that is read while another is
  // written.
  constexpr int own = 24;
  // More stages than layers, of which the built-in networks have at most two besides their blocks, are refused later.
  const std::int64_t most = settings.model == own_model ? settings.stages : settings.layers + 2;
  const auto stages = static_cast<int>(std::min<std::int64_t>(settings.stages, most));
  const std::string what =
      processes == 1 ? counted(settings.stages, "stage")
                     : fmt::format("{} in {}", counted(settings.stages, "stage"), counted(processes, "process"));
  need_stack(what);
  need_descriptors(own + 2 * stages * settings.replicas + ProcessGroup::descriptors_for(processes), what);
}

int threads_of_ranks(const TrainSettings& settings) { return default_threads(ranks_of_run(settings)); }

RunLayout layout_of_fewer(const TrainSettings& settings, int processes_before, int processes) {
  const int ranks = ranks_of_run(settings);
  const int stages_per_rank = settings.stages * settings.replicas / ranks;
  const int most = std::max(ranks * processes / processes_before, processes);
  TrainSettings fewer = settings;
  // Some schedules want an even number of ranks.
  for (fewer.replicas = settings.replicas; fewer.replicas >= 1; --fewer.replicas) {
    for (int wanted = most; wanted >= processes; --wanted) {
      if (wanted % fewer.replicas != 0) continue;
      fewer.stages = wanted / fewer.replicas * stages_per_rank;
      try {
        static_cast<void>(make_run_schedule(fewer));
        return {fewer.stages, fewer.replicas};
      } catch (const Error&) {
        continue;
      }
    }
  }
  throw bad_input(fmt::format("no {} on {} ranks of {}", settings.schedule, processes,
                              counted(settings.microbatches, "microbatch")),
                  "a schedule for the processes that are left", "choose another `schedule` for an `elastic` run");
}

TrainSettings settings_of_run(const std::filesystem::path& out) {
  std::error_code ignored;
  if (!std::filesystem::exists(RunFolder::config(out), ignored))
    throw bad_input(fmt::format("{} holds no run", out.string()), "a folder that penstock train has written",
                    "check the path");
  TrainSettings settings;
  apply_toml(settings, RunFolder::config(out));
  settings.out = out.string();
  return settings;
}

}  // namespace penstock
