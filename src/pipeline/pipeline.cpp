#include "penstock/pipeline/pipeline.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/memory.h"
#include "penstock/transport/transport.h"

#include "pipeline/control.h"
#include "pipeline/forward_schedule.h"
#include "pipeline/input_devices.h"
#include "pipeline/pipeline_plan.h"
#include "pipeline/rank_team.h"
#include "pipeline/saved_state.h"
#include "pipeline/steps.h"
#include "pipeline/telemetry.h"

namespace penstock {
namespace {

Minibatch minibatch_of(const at::Tensor& input, const at::Tensor& target) {
  if (input.dim() < 1)
    throw bad_input("an input of no dimension", "the samples in its first dimension", "check the dataset");
  Minibatch minibatch{{{input}}, {}};
  if (target.defined()) minibatch.targets.push_back({target});
  return minibatch;
}

// The elements of a tensor in float64 on any device; none for an undefined one.
std::vector<double> doubles_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor here = tensor.cpu();
  return {here.const_data_ptr<double>(), here.const_data_ptr<double>() + here.numel()};
}

}  // namespace

struct Pipeline::State {
  State(Network network, const VerifiedSchedule& schedule, PipelineSettings settings, ProcessGroup* group)
      : plan(make_pipeline_plan(std::move(network), schedule, std::move(settings))),
        team(plan, group),
        telemetry(team),
        control(team),
        steps(team, telemetry, control, plan.settings.steps_in_flight),
        input_devices(plan, team.first(), {team.first().value + static_cast<std::int32_t>(team.size())}) {}

  // The ranks, for anything but a step: with weights that stay.
  RankTeam& settled_team() {
    steps.check_last();
    return team;
  }

  StepHandle submit(const std::vector<Microbatch>& microbatches, const UpdateSettings& settings, bool alone) {
    const auto wanted = static_cast<std::size_t>(plan.training->microbatches);
    if (microbatches.size() != wanted)
      throw bad_input(fmt::format("a minibatch in {} parts", microbatches.size()),
                      fmt::format("{}, one for each microbatch of the schedule", wanted),
                      "cut it with split_minibatch, or take a schedule for that many");
    StepInput input;
    input.settings.step = settings.step;
    input.microbatches = microbatches;
    input_devices.bring(input.microbatches);
    input.keep_outputs = settings.keep_outputs;
    sequences = 0;
    return {steps.submit(std::move(input), settings, alone), steps};
  }

  std::vector<StepOutput> evaluate(StepInput input) {
    sequences = 0;
    if (input.microbatches.empty())
      throw bad_input("no microbatches to evaluate", "at least one", "give a minibatch of at least one sample");
    const VerifiedSchedule schedule =
        forward_schedule(plan.training.get(), plan.settings.replicas, static_cast<int>(input.microbatches.size()));
    input.settings.training = false;
    std::vector<StepOutput> outputs(team.size());
    settled_team().run([&](RankId rank) {
      // If there are fewer microbatches than replicas, some have none.
      if (rank.value < schedule->ranks())
        outputs[team.local(rank)] = team.worker(rank).evaluate(compile(schedule, rank), input);
    });
    return outputs;
  }

  PipelinePlan plan;
  RankTeam team;
  Telemetry telemetry;
  Control control;
  Steps steps;
  InputDevices input_devices;
  std::size_t sequences = 0;  // that the layers remember
};

Pipeline::Pipeline(Network network, const VerifiedSchedule& schedule, PipelineSettings settings, ProcessGroup* group)
    : state_(std::make_unique<State>(std::move(network), schedule, std::move(settings), group)) {}
Pipeline::Pipeline(Pipeline&&) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&&) noexcept = default;
Pipeline::~Pipeline() = default;

StepHandle::StepHandle(std::shared_ptr<StepInFlight> step, Steps& steps) : step_(std::move(step)), steps_(&steps) {}
StepHandle::StepHandle(StepHandle&&) noexcept = default;
StepHandle& StepHandle::operator=(StepHandle&&) noexcept = default;
StepHandle::~StepHandle() = default;

StepResult StepHandle::wait() {
  if (!step_)
    throw bad_input("a step without a result to come", "one that was submitted and not waited for", "wait once");
  const std::shared_ptr<StepInFlight> step = std::exchange(step_, nullptr);
  return steps_->wait(step);
}

StepHandle Pipeline::submit(const std::vector<Microbatch>& microbatches, const UpdateSettings& settings) {
  return state_->submit(microbatches, settings, state_->plan.settings.steps_in_flight == 1);
}

StepHandle Pipeline::submit(const at::Tensor& input, const at::Tensor& target, std::int64_t step,
                            double learning_rate) {
  return submit(split_minibatch(minibatch_of(input, target), state_->plan.training->microbatches),
                {step, learning_rate, /*keep_outputs=*/false});
}

StepResult Pipeline::step(const std::vector<Microbatch>& microbatches, const UpdateSettings& settings) {
  return state_->submit(microbatches, settings, /*alone=*/true).wait();
}

StepResult Pipeline::step(const at::Tensor& input, const at::Tensor& target, std::int64_t step, double learning_rate) {
  return this->step(split_minibatch(minibatch_of(input, target), state_->plan.training->microbatches),
                    {step, learning_rate, /*keep_outputs=*/false});
}

std::vector<Loss> Pipeline::evaluate(const std::vector<std::vector<Microbatch>>& minibatches) {
  StepInput input;
  for (const auto& minibatch : minibatches)
    input.microbatches.insert(input.microbatches.end(), minibatch.begin(), minibatch.end());
  std::vector<double> sums(input.microbatches.size());
  std::vector<double> weights = sums;
  const std::vector<StepOutput> outputs = state_->evaluate(std::move(input));
  std::vector<std::vector<double>> by_rank;
  state_->team.run([&](RankId rank) {
    const StepOutput& output = outputs[state_->team.local(rank)];
    std::vector<double> own = doubles_of(output.loss_sums);
    own.insert(own.end(), output.loss_weights.begin(), output.loss_weights.end());
    Worker& worker = state_->team.worker(rank);
    const UncountedMemory exchanged;
    auto gathered = all_gather(worker.transport(), own);
    if (rank == state_->team.first()) by_rank = std::move(gathered);
  });
  for (const std::vector<double>& numbers : by_rank) {
    for (std::size_t microbatch = 0; microbatch < numbers.size() / 2; ++microbatch) {
      sums[microbatch] += numbers[microbatch];
      weights[microbatch] += numbers[numbers.size() / 2 + microbatch];
    }
  }
  std::vector<Loss> losses;
  std::size_t next = 0;
  for (const auto& minibatch : minibatches) {
    double sum = 0;
    double weight = 0;
    for (std::size_t part = 0; part < minibatch.size(); ++part, ++next) {
      sum += sums[next];
      weight += weights[next];
    }
    losses.push_back({at::scalar_tensor(sum, at::kDouble), weight});
  }
  return losses;
}

Loss Pipeline::evaluate(const at::Tensor& input, const at::Tensor& target) {
  return evaluate({cut(input, target)}).front();
}

std::vector<Microbatch> Pipeline::cut(const at::Tensor& input, const at::Tensor& target) const {
  const Minibatch minibatch = minibatch_of(input, target);
  const std::int64_t most = std::min<std::int64_t>(state_->plan.training->microbatches, input.size(0));
  return split_minibatch(minibatch, static_cast<int>(std::max<std::int64_t>(most, 1)));
}

std::vector<Tensors> Pipeline::forward(const std::vector<Microbatch>& microbatches, Sequences sequences,
                                       const std::vector<bool>& begun_anew) {
  using enum Sequences;
  if (sequences == Continue && state_->sequences != microbatches.size())
    throw bad_input(fmt::format("{} to go on with, of {} that are remembered",
                                counted(static_cast<std::int64_t>(microbatches.size()), "sequence"), state_->sequences),
                    "as many as the last call began with, and no other call between", "begin them again");
  StepInput input;
  input.settings.with_loss = false;
  input.settings.sequences = sequences;
  input.settings.begun_anew = begun_anew;
  input.microbatches = microbatches;
  input.keep_outputs = true;
  std::vector<Tensors> outputs(microbatches.size());
  for (StepOutput& output : state_->evaluate(std::move(input))) take_outputs(output.outputs, outputs);
  state_->sequences = sequences == Whole ? 0 : microbatches.size();
  return outputs;
}

Tensors Pipeline::forward(const at::Tensor& input) { return merge_outputs(forward(cut(input, {}))); }

void Pipeline::save(CheckpointPart& part) { save_state(state_->settled_team(), part); }

void Pipeline::copy_state(std::vector<SavedStage>& copies) { penstock::copy_state(state_->settled_team(), copies); }

void Pipeline::load(const CheckpointReader& reader, std::int64_t updates, bool with_optimizer) {
  load_state(state_->settled_team(), reader, updates, with_optimizer);
}

std::vector<std::pair<std::string, at::Tensor>> Pipeline::weights() { return copied_weights(state_->settled_team()); }

std::vector<std::string> Pipeline::exchange(const std::string& text) {
  state_->steps.check_last();
  return state_->control.exchange(text);
}

void Pipeline::begin_accounting() {
  state_->steps.check_last();
  state_->telemetry.begin_accounting();
}

std::vector<StageReport> Pipeline::report() {
  state_->steps.check_last();
  return state_->telemetry.stages();
}

std::vector<LinkUse> Pipeline::links() const { return state_->telemetry.links(); }
std::vector<Bytes> Pipeline::peak_memory() {
  state_->steps.check_last();
  return state_->telemetry.peak_memory();
}

int Pipeline::ranks() const { return state_->team.ranks(); }
int Pipeline::threads_per_rank() const { return state_->plan.settings.threads_per_rank; }

}  // namespace penstock
