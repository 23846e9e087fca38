#include "pipeline/steps.h"

#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <utility>

namespace penstock {
namespace {

// Where the work of a step waits that is in none of its actions.
std::string update_of(const StepInFlight& step) { return fmt::format("step {}, at the update", step.settings.step); }

}  // namespace

void take_outputs(std::vector<Tensors>& rank_outputs, std::vector<Tensors>& outputs) {
  for (std::size_t microbatch = 0; microbatch < rank_outputs.size(); ++microbatch)
    if (!rank_outputs[microbatch].empty()) outputs[microbatch] = std::move(rank_outputs[microbatch]);
}

std::shared_ptr<StepInFlight> Steps::submit(StepInput input, const UpdateSettings& settings, bool alone) {
  while (!unchecked_.empty() && unchecked_.front()->unchecked == 0) unchecked_.pop_front();
  if (unchecked_.size() >= most_) {
    if (unchecked_[unchecked_.size() - most_] == last_) check_last();
    const StepInFlight& oldest = *unchecked_[unchecked_.size() - most_];
    team_.wait([&] { return oldest.unchecked == 0; });
  }
  const auto step = std::make_shared<StepInFlight>();
  step->input = std::move(input);
  step->settings = settings;
  step->word = {settings.stop_signal, settings.saving};
  step->by_rank.resize(static_cast<std::size_t>(team_.ranks()));
  step->begun.resize(team_.size());
  step->unchecked = team_.size();
  team_.submit([this, step, before = std::exchange(last_, alone ? nullptr : step),
                alone](RankId rank) { run_step(rank, *step, before.get(), alone); },
               RankTeam::Then::GoOn, update_of(*step));
  unchecked_.push_back(step);
  return step;
}

void Steps::run_step(RankId rank, StepInFlight& step, StepInFlight* before, bool alone) {
  Worker& worker = team_.worker(rank);
  step.begun[team_.local(rank)] = team_.clock().now();
  control_.announce(rank, step.word);
  WorkerStep& done = step.by_rank[rank.index()];
  done = worker.train(step.input, step.settings, [&](const StepResult& result) { conclude(rank, *before, result); });
  telemetry_.send(rank, done);
  if (alone && !done.result)
    if (auto checked = worker.check_update()) done.result = std::move(checked->result);
  if (done.result) conclude(rank, step, *done.result);
}

void Steps::check_last() {
  if (!last_) return;
  const auto step = std::exchange(last_, nullptr);
  team_.submit(
      [this, step](RankId rank) {
        if (const auto checked = team_.worker(rank).check_update()) conclude(rank, *step, checked->result);
      },
      RankTeam::Then::GoOn, update_of(*step));
}

// What the other processes have said of the step, behind its work.
void Steps::conclude(RankId rank, StepInFlight& step, const StepResult& result) {
  telemetry_.receive(rank, step.by_rank);
  control_.agree(rank, step.word);
  team_.change([&] {
    step.result = result;
    --step.unchecked;
  });
}

StepResult Steps::wait(const std::shared_ptr<StepInFlight>& step) {
  // If the team has failed, the wait says why.
  if (step == last_ && !team_.has_failed()) check_last();
  team_.wait([&] { return step->unchecked == 0; });
  StepResult result = std::move(step->result).value();
  result.stop_signal = step->word.stop_signal;
  result.saving = step->word.saving;
  if (step->settings.keep_outputs) result.outputs.resize(step->input.microbatches.size());
  result.timeline = telemetry_.timeline(step->by_rank, std::ranges::min(step->begun));
  result.begun = std::ranges::min(step->begun);
  for (std::size_t rank = 0; rank < team_.size(); ++rank)
    result.peak_memory.push_back(step->by_rank[team_.first().index() + rank].peak_memory);
  for (WorkerStep& worker_step : step->by_rank) take_outputs(worker_step.outputs, result.outputs);
  // Its inputs are the caller's again.
  std::erase(unchecked_, step);
  return result;
}

}  // namespace penstock
