#include "penstock/train/pipeline.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/exec/device.h"
#include "penstock/schedule/lower.h"
#include "penstock/transport/c10d.h"

#include "train/crew.h"
#include "train/forward_schedule.h"
#include "train/link_account.h"
#include "train/report_values.h"
#include "train/worker.h"

namespace penstock {
namespace {

void check_copies(const Schedule& schedule, const PipelineSettings& settings) {
  const auto& holders = schedule.placement.holders;
  const auto divided = [&](const auto& of_stage) { return std::ssize(of_stage) % settings.replicas == 0; };
  if (settings.replicas < 1 || schedule.ranks() % settings.replicas != 0 ||
      !std::all_of(holders.begin(), holders.end(), divided))
    throw bad_input(
        fmt::format("{} replicas in a schedule of {}", settings.replicas, counted(schedule.ranks(), "rank")),
        "as many ranks, and holders of every stage, in each replica", "make the schedule with side_by_side");
  if (settings.gradient_bucket.count < 1)
    throw bad_input(fmt::format("a bucket of {} bytes for gradients", settings.gradient_bucket.count), "at least 1",
                    "raise it");
  if (settings.shard_optimizer &&
      std::all_of(holders.begin(), holders.end(), [](const auto& of_stage) { return of_stage.size() == 1; }))
    throw bad_input("--zero 1 where every stage has one holder",
                    "replicas, among which the optimizer's state is shared", "raise --replicas, or leave --zero away");
}

PipelinePlan make_plan(Network network, const VerifiedSchedule& schedule, PipelineSettings settings) {
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  check_network(network);
  check_copies(schedule.get(), settings);
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
  std::vector<TieGroup> ties = tie_groups(network.ties);
  return {std::move(network), std::move(settings), lower(schedule), std::move(ties)};
}

// By rank, for those of this process.
std::vector<std::unique_ptr<DeviceLane>> make_lanes(const PipelinePlan& plan, RankId first, std::size_t own) {
  std::vector<std::unique_ptr<DeviceLane>> lanes(static_cast<std::size_t>(plan.training->ranks()));
  for (std::size_t rank = first.index(); rank < first.index() + own; ++rank)
    lanes[rank] = std::make_unique<DeviceLane>(device_of(plan, RankId{static_cast<std::int32_t>(rank)}));
  return lanes;
}

std::vector<DeviceLane*> views_of(const std::vector<std::unique_ptr<DeviceLane>>& lanes) {
  std::vector<DeviceLane*> views;
  views.reserve(lanes.size());
  for (const auto& lane : lanes) views.push_back(lane.get());
  return views;
}

Minibatch minibatch_of(const at::Tensor& input, const at::Tensor& target) {
  if (input.dim() < 1)
    throw bad_input("an input of no dimension", "the samples in its first dimension", "check the dataset");
  Minibatch minibatch{{{input}}, {}};
  if (target.defined()) minibatch.targets.push_back({target});
  return minibatch;
}

// Each output comes from one rank; the others have nothing in its place.
void take_outputs(std::vector<Tensors>& of_rank, std::vector<Tensors>& outputs) {
  for (std::size_t microbatch = 0; microbatch < of_rank.size(); ++microbatch)
    if (!of_rank[microbatch].empty()) outputs[microbatch] = std::move(of_rank[microbatch]);
}

// What a checkpoint keeps of the stages that this rank speaks for, and its shards of others: the tensors themselves,
// not copies.
std::vector<SavedStage> state_of(const Worker& worker, bool sharded) {
  std::vector<SavedStage> stages;
  for (const auto& [stage, tensors] : worker.state()) {
    const bool speaks = worker.speaks_for(stage);
    if (!speaks && !sharded) continue;
    SavedStage saved{stage, {}, worker.place_among_holders(stage)};
    saved.tensors.reserve(tensors.size());
    for (const auto& [name, tensor] : tensors)
      if (speaks || name.starts_with(optimizer_prefix)) saved.tensors.push_back({name, tensor.detach()});
    if (speaks && stage == StageId{0} && worker.loss_scale_state().defined())
      saved.tensors.push_back({loss_scale_name, worker.loss_scale_state()});
    if (!saved.tensors.empty()) stages.push_back(std::move(saved));
  }
  return stages;
}

// Tensors in the host's memory that `from` can be copied into; those that are there and fit are kept.
void make_room(const SavedStage& from, SavedStage& to) {
  to.stage = from.stage;
  to.shard = from.shard;
  to.tensors.resize(from.tensors.size());
  for (std::size_t index = 0; index < from.tensors.size(); ++index) {
    const at::Tensor& wanted = from.tensors[index].tensor;
    NamedTensor& copy = to.tensors[index];
    copy.name = from.tensors[index].name;
    if (!copy.tensor.defined() || copy.tensor.sizes() != wanted.sizes() ||
        copy.tensor.scalar_type() != wanted.scalar_type())
      copy.tensor = at::empty(wanted.sizes(), wanted.options().device(at::kCPU));
  }
}

}  // namespace

class Pipeline::State {
 public:
  State(Network network, const VerifiedSchedule& schedule, PipelineSettings settings, ProcessGroup* group)
      : plan_(make_plan(std::move(network), schedule, std::move(settings))),
        ends_(make_ends(plan_, group)),
        first_(ends_.front()->rank()),
        own_(ends_.size()),
        processes_(group == nullptr ? 1 : group->processes()),
        workers_(own_),
        lanes_(make_lanes(plan_, first_, own_)),
        transport_(ordered_by_events(std::move(ends_), views_of(lanes_))),
        leaders_(leaders_of(group)),
        clock_offsets_(static_cast<std::size_t>(schedule->ranks())),
        links_(schedule->stages, schedule->microbatches, leaders_),
        crew_(first_, static_cast<int>(own_)) {
    try {
      run([this](RankId rank) {
        at::set_num_threads(plan_.settings.threads_per_rank);
        workers_[local(rank)] = std::make_unique<Worker>(plan_, *transport_[local(rank)], clock_);
        compare_clocks(rank);
      });
      refuse_shared();
      run([this](RankId rank) { worker(rank).meet(); });
    } catch (...) {
      take_down();
      throw;
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  ~State() { take_down(); }

  // A worker counts its thread's memory: it is taken down where it was built.
  void take_down() {
    crew_.run([this](RankId rank) { workers_[local(rank)].reset(); }, [](const std::string&) {});
  }

  // While no rank is at work, and on a thread whose memory nobody counts.
  void refuse_shared() {
    try {
      refuse_shared_memory(layers());
      if (processes_ > 1) refuse_shared_with_others(plan_.network, layers());
    } catch (const std::exception& error) {
      transport_.front()->abort(error.what());
      throw;
    }
  }

  // Of all ranks of this process.
  [[nodiscard]] std::vector<PlacedLayer> layers() const {
    std::vector<PlacedLayer> layers;
    for (const auto& worker : workers_) {
      const std::vector<PlacedLayer> of_rank = worker->layers();
      layers.insert(layers.end(), of_rank.begin(), of_rank.end());
    }
    return layers;
  }

  // Of a rank of this process, its place in what is kept by rank.
  // Whether another rank of the same process keeps its tensors there: of what it holds, nobody knows whose it is.
  [[nodiscard]] bool shares_device(RankId rank) const {
    const at::Device device = device_of(plan_, rank);
    if (device.is_cpu()) return false;
    for (int process = 0; process < processes_; ++process) {
      const auto [first, end] = ranks_of_process(process, processes_, ranks());
      if (rank < first || rank >= end) continue;
      for (RankId other = first; other < end; ++other.value)
        if (other != rank && device_of(plan_, other) == device) return true;
    }
    return false;
  }
  [[nodiscard]] std::size_t local(RankId rank) const { return rank.index() - first_.index(); }
  [[nodiscard]] Worker& worker(RankId rank) { return *workers_[local(rank)]; }
  [[nodiscard]] bool is_own(RankId rank) const { return rank >= first_ && rank.index() < first_.index() + own_; }
  [[nodiscard]] int ranks() const { return plan_.training->ranks(); }

  static std::vector<std::unique_ptr<Transport>> make_ends(const PipelinePlan& plan, ProcessGroup* group) {
    const int ranks = plan.training->ranks();
    if (group == nullptr) {
      auto ends = make_inproc_transport(ranks, {spin_us_for(ranks)});
      return plan.settings.links ? plan.settings.links(std::move(ends)) : std::move(ends);
    }
    if (group->ranks() != ranks)
      throw bad_input(
          fmt::format("a schedule of {} for processes that share {}", counted(ranks, "rank"), group->ranks()),
          "the same number", "give the process group the schedule's ranks");
    return group->take_ends();
  }

  static std::vector<RankId> leaders_of(const ProcessGroup* group) {
    if (group == nullptr) return {RankId{0}};
    std::vector<RankId> leaders;
    leaders.reserve(static_cast<std::size_t>(group->processes()));
    for (int process = 0; process < group->processes(); ++process)
      leaders.push_back(ranks_of_process(process, group->processes(), group->ranks()).first);
    return leaders;
  }

  // What ranks of other processes tell rank 0, and what they must be told for it.
  void compare_clocks(RankId rank);
  void tell(RankId rank, RankId to, const std::vector<double>& values);
  [[nodiscard]] std::vector<double> hear(RankId rank, RankId from);
  void share_timelines(RankId rank, std::vector<WorkerStep>& results, std::vector<WorkerStep>& of_all);

  void run(const std::function<void(RankId)>& work) {
    if (stopped_)
      throw run_failed("a pipeline that has failed before", "a new one", "make a new one and load a checkpoint");
    try {
      const std::vector<c10::Event> before = marks_of_caller(plan_.settings.devices);
      const auto on_device = [&](RankId rank) {
        lanes_[rank.index()]->enter(before);
        work(rank);
        lanes_[rank.index()]->wait();
      };
      crew_.run(on_device, [this](const std::string& reason) { transport_.front()->abort(reason); });
    } catch (const c10::Error& error) {
      // Outside of an action, which has its own words: building layers, moving weights, the update.
      stopped_ = true;
      const std::string reason = error.what_without_backtrace();
      throw run_failed(reason.substr(0, reason.find('\n')), "layers that libtorch can build and update",
                       "where memory ran out, lower --width, --context or --batch");
    } catch (...) {
      stopped_ = true;
      throw;
    }
  }

  std::vector<StepOutput> evaluate(StepInput input) {
    sequences_ = 0;
    if (input.microbatches.empty())
      throw bad_input("no microbatches to evaluate", "at least one", "give a minibatch of at least one sample");
    const VerifiedSchedule schedule =
        forward_schedule(plan_.training.get(), plan_.settings.replicas, static_cast<int>(input.microbatches.size()));
    input.settings.training = false;
    std::vector<StepOutput> outputs(workers_.size());
    run([&](RankId rank) {
      // Of fewer microbatches than replicas some have none.
      if (rank.value < schedule->ranks()) outputs[local(rank)] = worker(rank).evaluate(compile(schedule, rank), input);
    });
    return outputs;
  }

  PipelinePlan plan_;
  SteadyClock clock_;
  std::vector<std::unique_ptr<Transport>> ends_;  // only until they are ordered
  RankId first_;                                  // own rank
  std::size_t own_;                               // ranks
  int processes_;
  std::vector<std::unique_ptr<Worker>> workers_;       // by own rank
  std::vector<std::unique_ptr<DeviceLane>> lanes_;     // by rank; none of other processes'
  std::vector<std::unique_ptr<Transport>> transport_;  // by own rank
  std::vector<RankId> leaders_;                        // the first rank of each process
  // By rank: how far its clock is ahead of rank 0's. Kept by rank 0's process.
  std::vector<Milliseconds> clock_offsets_;
  LinkAccount links_;  // kept there too
  bool stopped_ = false;
  std::size_t sequences_ = 0;  // that the layers remember
  Crew crew_;                  // last: its threads use everything above
};

// Rank 0 asks every rank of another process for its time. Where the answer's error is larger than the difference, the
// clocks are the same: that of one machine.
void Pipeline::State::compare_clocks(RankId rank) {
  constexpr int rounds = 5;
  if (rank != RankId{0}) {
    if (is_own(RankId{0})) return;
    for (int round = 0; round < rounds; ++round) {
      static_cast<void>(hear(rank, RankId{0}));
      tell(rank, RankId{0}, {clock_.now().count});
    }
    return;
  }
  for (RankId other{0}; other.value < ranks(); ++other.value) {
    if (is_own(other)) continue;
    Milliseconds least{std::numeric_limits<double>::infinity()};
    for (int round = 0; round < rounds; ++round) {
      const Milliseconds asked = clock_.now();
      tell(rank, other, {0});
      const Milliseconds there{hear(rank, other).front()};
      const Milliseconds answered = clock_.now();
      const Milliseconds took = answered - asked;
      if (took >= least) continue;
      least = took;
      const Milliseconds ahead{there.count - (asked.count + answered.count) / 2};
      clock_offsets_[other.index()] = std::abs(ahead.count) > took.count ? ahead : Milliseconds{};
    }
  }
}

void Pipeline::State::tell(RankId rank, RankId to, const std::vector<double>& values) {
  worker(rank).uncounted([&] {
    transport_[local(rank)]->send(to, {MessageKind::Report, rank.value, 0}, {at::tensor(values, at::kDouble)});
    return true;
  });
}

std::vector<double> Pipeline::State::hear(RankId rank, RankId from) {
  return worker(rank).uncounted([&] {
    const std::vector<at::Tensor> message =
        transport_[local(rank)]->receive(from, {MessageKind::Report, from.value, 0});
    const at::Tensor values = message.at(0).to(at::kDouble).contiguous();
    return std::vector<double>(values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel());
  });
}

// So that rank 0's process knows what all have done.
void Pipeline::State::share_timelines(RankId rank, std::vector<WorkerStep>& results, std::vector<WorkerStep>& of_all) {
  if (!is_own(RankId{0})) tell(rank, RankId{0}, to_values(results[local(rank)]));
  if (rank != RankId{0}) return;
  for (RankId other{0}; other.value < ranks(); ++other.value)
    if (!is_own(other)) take_values(hear(rank, other), clock_offsets_[other.index()], of_all[other.index()]);
}

Pipeline::Pipeline(Network network, const VerifiedSchedule& schedule, PipelineSettings settings, ProcessGroup* group)
    : state_(std::make_unique<State>(std::move(network), schedule, std::move(settings), group)) {}
Pipeline::Pipeline(Pipeline&&) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&&) noexcept = default;
Pipeline::~Pipeline() = default;

StepResult Pipeline::step(const at::Tensor& input, const at::Tensor& target, std::int64_t step, double learning_rate) {
  return this->step(split_minibatch(minibatch_of(input, target), state_->plan_.training->microbatches),
                    {step, learning_rate, /*keep_outputs=*/false});
}

StepResult Pipeline::step(const std::vector<Microbatch>& microbatches, const UpdateSettings& settings) {
  const auto wanted = static_cast<std::size_t>(state_->plan_.training->microbatches);
  if (microbatches.size() != wanted)
    throw bad_input(fmt::format("a minibatch in {} parts", microbatches.size()),
                    fmt::format("{}, one for each microbatch of the schedule", wanted),
                    "cut it with split_minibatch, or take a schedule for that many");
  StepInput input;
  input.settings.step = settings.step;
  input.microbatches = microbatches;
  input.keep_outputs = settings.keep_outputs;
  state_->sequences_ = 0;
  std::vector<WorkerStep> results(state_->workers_.size());
  const Milliseconds start = state_->clock_.now();
  std::vector<WorkerStep> of_all(static_cast<std::size_t>(state_->ranks()));
  state_->run([&](RankId rank) {
    results[state_->local(rank)] = state_->worker(rank).train(input, settings);
    state_->share_timelines(rank, results, of_all);
  });
  StepResult result = results.front().result;
  if (settings.keep_outputs) result.outputs.resize(wanted);
  for (WorkerStep& own : results)
    of_all[state_->first_.index() + static_cast<std::size_t>(&own - results.data())] = std::move(own);
  if (state_->is_own(RankId{0})) {
    std::vector<RankTraffic> traffic;
    traffic.reserve(of_all.size());
    for (const WorkerStep& of_rank : of_all) traffic.push_back({of_rank.events, of_rank.receipts});
    state_->links_.add(traffic);
  }
  for (WorkerStep& of_rank : of_all) {
    std::vector<MemorySample> memory;
    for (std::size_t index = 0; index < of_rank.events.size(); ++index) {
      Event& event = of_rank.events[index];
      event.start = event.start - start;
      event.end = event.end - start;
      memory.push_back({event.end, of_rank.activations[index]});
    }
    if (state_->shares_device({static_cast<std::int32_t>(result.timeline.ranks.size())})) memory.clear();
    result.timeline.ranks.push_back(std::move(of_rank.events));
    result.timeline.memory.push_back(std::move(memory));
    take_outputs(of_rank.outputs, result.outputs);
  }
  return result;
}

std::vector<Loss> Pipeline::evaluate(const std::vector<std::vector<Microbatch>>& minibatches) {
  StepInput input;
  for (const auto& minibatch : minibatches)
    input.microbatches.insert(input.microbatches.end(), minibatch.begin(), minibatch.end());
  std::vector<double> sums(input.microbatches.size());
  std::vector<double> weights = sums;
  const std::vector<StepOutput> outputs = state_->evaluate(std::move(input));
  std::vector<std::vector<double>> of_all;
  state_->run([&](RankId rank) {
    const StepOutput& output = outputs[state_->local(rank)];
    std::vector<double> own = output.loss_sums;
    own.insert(own.end(), output.loss_weights.begin(), output.loss_weights.end());
    Worker& worker = state_->worker(rank);
    auto gathered = worker.uncounted([&] { return all_gather(worker.transport(), own); });
    if (rank == state_->first_) of_all = std::move(gathered);
  });
  for (const std::vector<double>& of_rank : of_all) {
    for (std::size_t microbatch = 0; microbatch < of_rank.size() / 2; ++microbatch) {
      sums[microbatch] += of_rank[microbatch];
      weights[microbatch] += of_rank[of_rank.size() / 2 + microbatch];
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
  const std::int64_t most = std::min<std::int64_t>(state_->plan_.training->microbatches, input.size(0));
  return split_minibatch(minibatch, static_cast<int>(std::max<std::int64_t>(most, 1)));
}

std::vector<Tensors> Pipeline::forward(const std::vector<Microbatch>& microbatches, StepSettings::Sequences sequences) {
  using enum StepSettings::Sequences;
  if (sequences == Continue && state_->sequences_ != microbatches.size())
    throw bad_input(
        fmt::format("{} to go on with, of {} that are remembered",
                    counted(static_cast<std::int64_t>(microbatches.size()), "sequence"), state_->sequences_),
        "as many as the last call began with, and no other call between", "begin them again");
  StepInput input;
  input.settings.with_loss = false;
  input.settings.sequences = sequences;
  input.microbatches = microbatches;
  input.keep_outputs = true;
  std::vector<Tensors> outputs(microbatches.size());
  for (StepOutput& of_rank : state_->evaluate(std::move(input))) take_outputs(of_rank.outputs, outputs);
  state_->sequences_ = sequences == Whole ? 0 : microbatches.size();
  return outputs;
}

Tensors Pipeline::forward(const at::Tensor& input) { return merge_outputs(forward(cut(input, {}))); }

void Pipeline::save(CheckpointPart& part) {
  state_->run([&](RankId rank) {
    for (const SavedStage& saved : state_of(state_->worker(rank), state_->plan_.settings.shard_optimizer))
      part.write_stage(saved.stage, saved.tensors, saved.shard);
  });
}

void Pipeline::copy_state(std::vector<SavedStage>& copies) {
  // Made here and not on the ranks' threads, whose memory is counted.
  std::vector<std::vector<SavedStage>> of_ranks(state_->own_);
  std::vector<std::size_t> first(state_->own_);
  std::size_t stages = 0;
  for (std::size_t own = 0; own < state_->own_; ++own) {
    of_ranks[own] = state_of(*state_->workers_[own], state_->plan_.settings.shard_optimizer);
    first[own] = stages;
    stages += of_ranks[own].size();
  }
  copies.resize(stages);
  for (std::size_t own = 0; own < state_->own_; ++own)
    for (std::size_t index = 0; index < of_ranks[own].size(); ++index)
      make_room(of_ranks[own][index], copies[first[own] + index]);
  state_->run([&](RankId rank) {
    const std::size_t own = state_->local(rank);
    for (std::size_t index = 0; index < of_ranks[own].size(); ++index) {
      const SavedStage& from = of_ranks[own][index];
      for (std::size_t tensor = 0; tensor < from.tensors.size(); ++tensor)
        copies[first[own] + index].tensors[tensor].tensor.copy_(from.tensors[tensor].tensor);
    }
  });
}

std::vector<std::string> Pipeline::exchange(const std::string& text) {
  if (state_->leaders_.size() == 1) return {text};
  std::vector<std::string> texts;
  state_->run([&](RankId rank) {
    Worker& worker = state_->worker(rank);
    if (rank == state_->first_)
      texts = worker.uncounted([&] { return all_gather_texts(worker.transport(), text, state_->leaders_); });
  });
  return texts;
}

void Pipeline::load(const CheckpointReader& reader, std::int64_t updates, bool with_optimizer) {
  state_->run([&](RankId rank) {
    const at::NoGradGuard no_graph;
    Worker& worker = state_->worker(rank);
    std::vector<Worker::NamedTensorView> counts;
    for (const auto& [stage, tensors] : with_optimizer ? worker.state() : worker.weights()) {
      for (const auto& [own_name, tensor] : tensors) {
        // A parameter of several names has its optimizer's state under the first only.
        const std::string of_owner = worker.name_to_load(own_name);
        const std::string& name = reader.contains(of_owner) ? of_owner : own_name;
        if (is_update_count(name)) {
          if (!reader.contains(name)) continue;
          counts.emplace_back(own_name, tensor);
        }
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
    const bool scaled = with_optimizer && reader.contains(loss_scale_name);
    worker.resume(updates, scaled ? reader.read(loss_scale_name) : at::Tensor(), counts);
  });
}

std::vector<std::pair<std::string, at::Tensor>> Pipeline::weights() {
  std::map<StageId, std::vector<std::pair<std::string, at::Tensor>>> by_stage;
  std::mutex mutex;
  state_->run([&](RankId rank) {
    const UncountedMemory of_caller;
    for (const auto& [stage, tensors] : state_->worker(rank).weights()) {
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
  state_->links_.reset();
  state_->run([&](RankId rank) { state_->worker(rank).begin_accounting(); });
}

std::vector<StageReport> Pipeline::report() {
  std::vector<StageReport> all;
  std::mutex mutex;
  const auto keep = [&](const std::vector<StageReport>& reports) {
    const std::scoped_lock lock(mutex);
    all.insert(all.end(), reports.begin(), reports.end());
  };
  state_->run([&](RankId rank) {
    const std::vector<StageReport> own = state_->worker(rank).report();
    keep(own);
    if (!state_->is_own(RankId{0})) state_->tell(rank, RankId{0}, to_values(own));
    if (rank != RankId{0}) return;
    for (RankId other{0}; other.value < state_->ranks(); ++other.value)
      if (!state_->is_own(other)) keep(stage_reports(state_->hear(rank, other)));
  });
  std::sort(all.begin(), all.end(), [](const StageReport& a, const StageReport& b) {
    return std::pair(a.stage, a.rank) < std::pair(b.stage, b.rank);
  });
  return all;
}

std::vector<LinkUse> Pipeline::links() const { return state_->links_.uses(); }

std::vector<Bytes> Pipeline::peak_memory() {
  std::vector<Bytes> peaks(state_->own_);
  state_->run([&](RankId rank) { peaks[state_->local(rank)] = state_->worker(rank).peak_memory(); });
  return peaks;
}

int Pipeline::ranks() const { return state_->ranks(); }
int Pipeline::threads_per_rank() const { return state_->plan_.settings.threads_per_rank; }

}  // namespace penstock
