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
#include "penstock/settings/checks.h"
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
                const MakeJob& make_job, int ranks_here = 0) {
  try {
    return Run(settings, observer, group, make_job, ranks_here)();
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
  if (!settings.processes.listen.empty()) check_own_address("`listen`", settings.processes.listen);
  const bool alone = !processes || processes->processes == 1;
  check_limits(settings, alone ? 1 : processes->processes);
  if (is_automatic(settings.layout)) {
    if (!alone)
      throw bad_input(fmt::format("auto in one of {} processes", processes->processes),
                      "a plan, where several processes share a run",
                      "write a plan with penstock plan and give its file with `plan`");
    return run(choose_automatic(settings, make_job(settings), observer.on_note), observer, nullptr, make_job);
  }
  if (alone) return run(settings, observer, nullptr, make_job);
  ProcessSettings own = *processes;
  // What no schedule can be made of is refused before the processes come together.
  check_schedule(settings.layout);
  own.ranks = ranks_of(settings.layout);
  own.peer_timeout = Milliseconds{settings.processes.peer_timeout * 1000};
  own.join_timeout = Milliseconds{settings.processes.join_timeout * 1000};
  own.own_address = settings.processes.listen;
  const auto [first, end] = ranks_of_process(own.process, own.processes, own.ranks);
  for (std::size_t rank = first.index(); rank < end.index() && !settings.layout.devices.empty(); ++rank)
    own.devices.push_back(settings.layout.devices[rank % settings.layout.devices.size()]);
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
    return run(settings, observer, &group, make_job, ranks_of_machine(own));
  } catch (const std::exception& error) {
    // Whatever ends one process ends all, in its words.
    group.abort(error.what());
    throw;
  }
}

}  // namespace

TrainResult train(const TrainSettings& settings, const TrainObserver& observer,
                  const std::optional<ProcessSettings>& processes) {
  const TrainSettings own = with_published_shape(settings);
  check_settings(own);
  return train_job(own, observer, processes, [](const TrainSettings& all) { return job_of(all); });
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
  // More stages than layers are refused later.
  const auto stages = static_cast<int>(std::min<std::int64_t>(settings.layout.stages, network_layers(settings.model)));
  const std::string what =
      processes == 1 ? counted(settings.layout.stages, "stage")
                     : fmt::format("{} in {}", counted(settings.layout.stages, "stage"), counted(processes, "process"));
  need_stack(what);
  need_descriptors(own + 2 * stages * settings.layout.replicas + ProcessGroup::descriptors_for(processes), what);
}

int threads_of(const Layout& layout, int ranks_here) {
  return layout.threads_per_rank > 0 ? layout.threads_per_rank : default_threads(ranks_here);
}

TrainSettings settings_of_run(const std::filesystem::path& out) {
  std::error_code ignored;
  if (!std::filesystem::exists(RunFolder::config(out), ignored))
    throw bad_input(fmt::format("{} holds no run", out.string()), "a folder that penstock train has written",
                    "check the path");
  TrainSettings settings;
  apply_toml(settings, RunFolder::config(out));
  settings.output.folder = out.string();
  return settings;
}

}  // namespace penstock
