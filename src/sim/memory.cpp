#include <algorithm>
#include <optional>

#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"
#include "penstock/sim/passes.h"

#include "sim/play.h"

namespace penstock {
namespace {

/// At `time` a rank takes `bytes`, or gives them back where they are negative.
struct Change {
  double time;
  std::int64_t bytes;
};

bool earlier(const Change& a, const Change& b) { return a.time < b.time; }

/// All that a rank takes and gives back in a step. Its own actions are in the order of time; the departures of messages
/// are nearly so, and are kept apart to be sorted and merged.
class Ledger {
 public:
  Ledger(const Schedule& schedule, const Cost& cost, const Play& played, RankId rank)
      : schedule_(schedule), cost_(cost), played_(played), rank_(rank) {
    bool second_of_pair = false;
    for (const Event& event : entry(played.events, rank)) {
      at_start_ = at_end_ = 0;
      enter(event);
      // The two of a pair that overlaps run one after the other.
      const double middle = event.start.count + (event.end - event.start).count / 2;
      const double start = second_of_pair ? middle : event.start.count;
      const double end = event.action.overlaps_next ? middle : event.end.count;
      if (at_start_ != 0) own_.push_back({start, at_start_});
      if (at_end_ != 0) own_.push_back({end, at_end_});
      second_of_pair = event.action.overlaps_next;
    }
    std::stable_sort(messages_.begin(), messages_.end(), earlier);
  }

  /// \param held by the rank all the time.
  [[nodiscard]] std::vector<MemorySample> samples(Bytes held) const {
    std::vector<Change> changes(own_.size() + messages_.size());
    std::merge(own_.begin(), own_.end(), messages_.begin(), messages_.end(), changes.begin(), earlier);
    std::vector<MemorySample> samples{{{0}, held}};
    for (const Change& change : changes) {
      held.count += change.bytes;
      // What happens at one instant counts once, after all of it: what one action frees, the next may take.
      if (samples.back().time.count == change.time)
        samples.back().bytes = held;
      else
        samples.push_back({{change.time}, held});
    }
    return samples;
  }

 private:
  void enter(const Event& event) {
    const Action& action = event.action;
    const std::optional<Pass> pass = pass_of(action.kind);
    if (!pass) return;
    const bool makes_gradient = computes_weight_gradients(*pass);
    const bool first_gradient = makes_gradient && !entry(has_gradient_, action.stage);
    if (first_gradient) entry(has_gradient_, action.stage) = true;
    const PassMemory memory = memory_of_pass(entry(cost_.stages, action.stage), *pass, boundaries(action),
                                             first_gradient, schedule_.forward_only);
    at_start_ += memory.at_start.count;
    at_end_ += memory.at_end.count;
    if (memory.message.count == 0) return;
    if (*pass == Pass::Forward)
      send(played_.inputs, action, action.stage.value + 1, memory.message);
    else
      send(played_.gradients, action, action.stage.value - 1, memory.message);
  }

  [[nodiscard]] bool exists(std::int32_t stage) const { return stage >= 0 && stage < schedule_.stages; }

  [[nodiscard]] bool elsewhere(std::int32_t stage, MicrobatchId microbatch) const {
    return played_.routes.rank_of(StageId{stage}, microbatch) != rank_;
  }

  [[nodiscard]] StageBoundaries boundaries(const Action& action) const {
    const std::int32_t stage = action.stage.value;
    StageBoundaries found;
    if (exists(stage - 1)) {
      found.input = entry(cost_.stages, StageId{stage - 1}).boundary;
      found.input_is_local = !elsewhere(stage - 1, action.microbatch);
      found.input_returns_gradient = entry(cost_.stages, StageId{stage - 1}).gradient_returns;
    }
    if (exists(stage + 1)) {
      found.output = entry(cost_.stages, action.stage).boundary;
      found.output_is_local = !elsewhere(stage + 1, action.microbatch);
      found.output_returns_gradient = entry(cost_.stages, action.stage).gradient_returns;
    }
    return found;
  }

  /// Gives a message back when the link has it. What stays on the rank the stage that uses it takes over.
  void send(const Arrivals& arrivals, const Action& action, std::int32_t to_stage, Bytes message) {
    if (!elsewhere(to_stage, action.microbatch)) return;
    const RankId to = played_.routes.rank_of(StageId{to_stage}, action.microbatch);
    const double left =
        arrivals.at(StageId{to_stage}, action.microbatch) - link_between(cost_, rank_, to).latency.count;
    messages_.push_back({left, -message.count});
  }

  const Schedule& schedule_;
  const Cost& cost_;
  const Play& played_;
  RankId rank_;
  std::vector<bool> has_gradient_ = std::vector<bool>(cost_.stages.size());  ///< by stage
  std::int64_t at_start_ = 0;                                                ///< of the present event
  std::int64_t at_end_ = 0;
  std::vector<Change> own_;
  std::vector<Change> messages_;
};

}  // namespace

std::vector<std::vector<MemorySample>> memory_of(const Schedule& schedule, const Cost& cost, const Play& played) {
  std::vector<Bytes> standing(schedule.actions.size());
  for (std::size_t stage = 0; stage < cost.stages.size(); ++stage) {
    const StageCost& size = cost.stages[stage];
    for (const RankId holder : schedule.placement.holders[stage]) {
      entry(standing, holder) += schedule.forward_only ? size.parameter : memory_of_weights(size);
    }
  }
  std::vector<std::vector<MemorySample>> memory;
  memory.reserve(standing.size());
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    memory.push_back(Ledger(schedule, cost, played, {rank}).samples(entry(standing, rank)));
  return memory;
}

}  // namespace penstock
