#include "penstock/train/pipeline.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/schedule/lower.h"

#include "train/crew.h"
#include "train/worker.h"

namespace penstock {
namespace {

// The same forwards in the same order: what can be trained can be evaluated.
VerifiedSchedule without_backward(const VerifiedSchedule& schedule) {
  Schedule forward = schedule.get();
  forward.forward_only = true;
  for (auto& actions : forward.actions) {
    std::erase_if(actions, [](const Action& action) {
      return action.kind != ActionKind::Forward && action.kind != ActionKind::SendForward &&
             action.kind != ActionKind::ReceiveForward;
    });
    for (Action& action : actions) action.overlaps_next = false;
  }
  return lower(verify(std::move(forward)));
}

// A schedule of the same placement for another number of microbatches, forward only and each stage in order.
VerifiedSchedule forward_schedule(const Schedule& like, int microbatches) {
  Schedule forward;
  forward.forward_only = true;
  forward.stages = like.stages;
  forward.microbatches = microbatches;
  forward.placement = like.placement;
  forward.actions.resize(like.actions.size());
  for (std::int32_t microbatch = 0; microbatch < microbatches; ++microbatch) {
    for (std::int32_t stage = 0; stage < like.stages; ++stage) {
      const RankId rank = like.placement.holders[static_cast<std::size_t>(stage)].front();
      forward.actions[rank.index()].push_back({ActionKind::Forward, {stage}, {microbatch}});
    }
  }
  return lower(verify(std::move(forward)));
}

int default_threads(int ranks) { return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks); }

PipelinePlan make_plan(Network network, const VerifiedSchedule& schedule, PipelineSettings settings) {
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  if (!network.loss)
    throw bad_input("a network without a loss", "a function of outputs and target", "set Network::loss");
  if (settings.cut.empty()) settings.cut = uniform_cut(layers, schedule->stages);
  const Cut& cut = settings.cut;
  const bool ascending = std::is_sorted(cut.begin(), cut.end(), std::less_equal<>());
  if (static_cast<int>(cut.size()) != schedule->stages || cut.front() != 0 || cut.back() >= layers || !ascending)
    throw bad_input(fmt::format("a cut into {} stages of {} layers", cut.size(), layers),
                    fmt::format("the schedule's {} stages, ascending from layer 0", schedule->stages),
                    "make the cut for this schedule");
  if (settings.threads_per_rank < 0)
    throw bad_input(fmt::format("{} threads a rank", settings.threads_per_rank), "at least 1, or 0 to choose",
                    "raise --threads-per-rank");
  if (settings.threads_per_rank == 0) settings.threads_per_rank = default_threads(schedule->ranks());
  return {std::move(network), std::move(settings), lower(schedule), without_backward(schedule)};
}

// Sizes that differ by at most one, the larger ones first; views, not copies.
std::vector<at::Tensor> split(const at::Tensor& minibatch, int microbatches) {
  return minibatch.tensor_split(microbatches, 0);
}

}  // namespace

class Pipeline::State {
 public:
  State(Network network, const VerifiedSchedule& schedule, PipelineSettings settings)
      : plan_(make_plan(std::move(network), schedule, std::move(settings))),
        workers_(static_cast<std::size_t>(schedule->ranks())),
        transport_(make_inproc_transport(schedule->ranks(), inproc_settings(schedule->ranks()))),
        crew_(schedule->ranks()) {
    run([this](RankId rank) {
      at::set_num_threads(plan_.settings.threads_per_rank);
      workers_[rank.index()] = std::make_unique<Worker>(plan_, *transport_[rank.index()], clock_);
    });
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  // A worker counts its thread's memory: it is taken down where it was built.
  ~State() {
    crew_.run([this](RankId rank) { workers_[rank.index()].reset(); }, [](const std::string&) {});
  }

  // Spinning pays only where every rank has a core.
  static InprocSettings inproc_settings(int ranks) {
    return {ranks <= static_cast<int>(std::thread::hardware_concurrency()) ? 200.0 : 0.0};
  }

  void run(const std::function<void(RankId)>& work) {
    if (stopped_)
      throw run_failed("a pipeline that has failed before", "a new one", "make a new one and load a checkpoint");
    try {
      crew_.run(work, [this](const std::string& reason) { transport_.front()->abort(reason); });
    } catch (...) {
      stopped_ = true;
      throw;
    }
  }

  static StepInput cut_into_microbatches(const at::Tensor& input, const at::Tensor& target,
                                         const VerifiedSchedule& schedule) {
    const int microbatches = schedule->microbatches;
    if (input.dim() < 1 || input.size(0) < microbatches)
      throw bad_input(fmt::format("a minibatch of {} samples for {} microbatches", input.dim() < 1 ? 0 : input.size(0),
                                  microbatches),
                      "at least one sample a microbatch", "lower --microbatches or raise --batch");
    if (target.defined() && target.size(0) != input.size(0))
      throw bad_input(fmt::format("{} inputs and {} targets", input.size(0), target.size(0)), "as many of both",
                      "check the dataset");
    StepInput step;
    for (at::Tensor& microbatch : split(input, microbatches)) step.inputs.push_back({std::move(microbatch)});
    if (target.defined()) step.targets = split(target, microbatches);
    return step;
  }

  // Evaluation takes any number of samples: where there are fewer than microbatches, one microbatch.
  std::vector<StepOutput> evaluate(const at::Tensor& input, const at::Tensor& target, bool keep_outputs) {
    const bool fits = input.dim() > 0 && input.size(0) >= plan_.evaluation->microbatches;
    const VerifiedSchedule schedule = fits ? plan_.evaluation : forward_schedule(plan_.training.get(), 1);
    StepInput step = cut_into_microbatches(input, target, schedule);
    step.training = false;
    step.keep_outputs = keep_outputs;
    std::vector<StepOutput> outputs(workers_.size());
    run([&](RankId rank) { outputs[rank.index()] = workers_[rank.index()]->evaluate(compile(schedule, rank), step); });
    return outputs;
  }

  PipelinePlan plan_;
  SteadyClock clock_;
  std::vector<std::unique_ptr<Worker>> workers_;  // by rank
  std::vector<std::unique_ptr<Transport>> transport_;
  bool stopped_ = false;
  Crew crew_;  // last: its threads use everything above
};

Pipeline::Pipeline(Network network, const VerifiedSchedule& schedule, PipelineSettings settings)
    : state_(std::make_unique<State>(std::move(network), schedule, std::move(settings))) {}
Pipeline::Pipeline(Pipeline&&) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&&) noexcept = default;
Pipeline::~Pipeline() = default;

StepResult Pipeline::step(const at::Tensor& input, const at::Tensor& target, std::int64_t step, double learning_rate) {
  StepInput microbatches = state_->cut_into_microbatches(input, target, state_->plan_.training);
  microbatches.step = step;
  std::vector<WorkerStep> results(state_->workers_.size());
  const Milliseconds start = state_->clock_.now();
  state_->run(
      [&](RankId rank) { results[rank.index()] = state_->workers_[rank.index()]->train(microbatches, learning_rate); });
  StepResult result{results.front().loss, results.front().weight, results.front().gradient_norm, {}};
  for (WorkerStep& of_rank : results) {
    for (Event& event : of_rank.events) {
      event.start = event.start - start;
      event.end = event.end - start;
    }
    result.timeline.ranks.push_back(std::move(of_rank.events));
  }
  return result;
}

Loss Pipeline::evaluate(const at::Tensor& input, const at::Tensor& target) {
  double sum = 0;
  double weight = 0;
  for (const StepOutput& output : state_->evaluate(input, target, /*keep_outputs=*/false)) {
    for (std::size_t microbatch = 0; microbatch < output.loss_sums.size(); ++microbatch) {
      sum += output.loss_sums[microbatch];
      weight += output.loss_weights[microbatch];
    }
  }
  return {at::scalar_tensor(sum, at::kDouble), weight};
}

Tensors Pipeline::forward(const at::Tensor& input) {
  std::vector<Tensors> by_microbatch;
  for (StepOutput& output : state_->evaluate(input, {}, /*keep_outputs=*/true)) {
    by_microbatch.resize(std::max(by_microbatch.size(), output.outputs.size()));
    for (std::size_t microbatch = 0; microbatch < output.outputs.size(); ++microbatch)
      if (!output.outputs[microbatch].empty()) by_microbatch[microbatch] = std::move(output.outputs[microbatch]);
  }
  check_invariant(!by_microbatch.empty(), "no rank returned the last stage's outputs");
  Tensors joined;
  for (std::size_t index = 0; index < by_microbatch.front().size(); ++index) {
    std::vector<at::Tensor> parts;
    parts.reserve(by_microbatch.size());
    for (const Tensors& microbatch : by_microbatch) parts.push_back(microbatch.at(index));
    joined.push_back(at::cat(parts));
  }
  return joined;
}

void Pipeline::save(CheckpointWriter& writer) {
  state_->run([&](RankId rank) {
    const Worker& worker = *state_->workers_[rank.index()];
    for (const auto& [stage, tensors] : worker.state()) {
      if (!worker.speaks_for(stage)) continue;
      std::vector<NamedTensor> named;
      named.reserve(tensors.size());
      for (const auto& [name, tensor] : tensors) named.push_back({name, tensor.detach()});
      writer.write_stage(stage, named);
    }
  });
}

void Pipeline::load(const CheckpointReader& reader, std::int64_t updates, bool with_optimizer) {
  state_->run([&](RankId rank) {
    const at::NoGradGuard no_graph;
    Worker& worker = *state_->workers_[rank.index()];
    for (const auto& [stage, tensors] : with_optimizer ? worker.state() : worker.weights()) {
      for (const auto& [name, tensor] : tensors) {
        const at::Tensor saved = reader.contains(name) ? reader.read(name) : at::Tensor();
        if (!saved.defined() || saved.sizes() != tensor.sizes() || saved.scalar_type() != tensor.scalar_type())
          throw bad_input(
              fmt::format("the checkpoint holds {} as {}", name,
                          saved.defined() ? fmt::format("a tensor of {} elements", saved.numel()) : "nothing"),
              fmt::format("{} elements in the same shape", tensor.numel()),
              "resume with the model's own settings, or start in another folder");
        tensor.detach().copy_(saved);
      }
    }
    worker.resume(updates);
  });
}

std::vector<std::pair<std::string, at::Tensor>> Pipeline::weights() {
  std::map<StageId, std::vector<std::pair<std::string, at::Tensor>>> by_stage;
  std::mutex mutex;
  state_->run([&](RankId rank) {
    for (const auto& [stage, tensors] : state_->workers_[rank.index()]->weights()) {
      std::vector<std::pair<std::string, at::Tensor>> copies;
      for (const auto& [name, tensor] : tensors) copies.emplace_back(name, tensor.detach().to(at::kCPU, false, true));
      const std::scoped_lock lock(mutex);
      by_stage[stage] = std::move(copies);
    }
  });
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (auto& [stage, tensors] : by_stage) all.insert(all.end(), tensors.begin(), tensors.end());
  return all;
}

void Pipeline::begin_accounting() {
  state_->run([&](RankId rank) { state_->workers_[rank.index()]->begin_accounting(); });
}

std::vector<StageReport> Pipeline::report() {
  std::vector<StageReport> all(static_cast<std::size_t>(state_->plan_.training->stages));
  state_->run([&](RankId rank) {
    for (const StageReport& report : state_->workers_[rank.index()]->report())
      all[static_cast<std::size_t>(report.stage)] = report;
  });
  return all;
}

int Pipeline::ranks() const { return static_cast<int>(state_->workers_.size()); }
int Pipeline::threads_per_rank() const { return state_->plan_.settings.threads_per_rank; }

}  // namespace penstock
