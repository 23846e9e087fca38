#include "penstock/profile/profile.h"
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
#include <algorithm>
#include "penstock/nn/ties.h"
#include <atomic>
#include "penstock/nn/ties.h"
#include <barrier>
#include "penstock/nn/ties.h"
#include <fmt/format.h>
#include "penstock/nn/ties.h"
#include <map>
#include "penstock/nn/ties.h"
#include <mutex>
#include "penstock/nn/ties.h"
#include <thread>
#include "penstock/nn/ties.h"
#include <utility>
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
#include <ATen/ATen.h>
#include "penstock/nn/ties.h"
#include <ATen/Parallel.h>
#include "penstock/nn/ties.h"
#include <torch/nn/module.h>
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
#include "penstock/base/error.h"
#include "penstock/nn/ties.h"
#include "penstock/base/quantile.h"
#include "penstock/nn/ties.h"
#include "penstock/base/thread.h"
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
#include "profile/layer_measurement.h"
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
namespace penstock {
#include "penstock/nn/ties.h"
namespace {
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
constexpr int warm_up_cycles = 2;
#include "penstock/nn/ties.h"
constexpr int fewest_cycles = 3;
#include "penstock/nn/ties.h"
constexpr int most_cycles = 15;
#include "penstock/nn/ties.h"
constexpr int updates = 5;
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
// What makes layers alike: their kind, whether they are the first or the last, and what flows in at every size.
#include "penstock/nn/ties.h"
using Sort = std::pair<std::string, std::vector<std::int64_t>>;
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
// One sort of layer, as one rank has measured it.
#include "penstock/nn/ties.h"
struct Entry {
#include "penstock/nn/ties.h"
  std::int64_t layer = 0;        // the first of them
#include "penstock/nn/ties.h"
  std::vector<Tensors> inputs;   // by size
#include "penstock/nn/ties.h"
  std::vector<Tensors> outputs;  // by size
#include "penstock/nn/ties.h"
  std::vector<LayerSamples> by_size;
#include "penstock/nn/ties.h"
  std::vector<double> update_ms;
#include "penstock/nn/ties.h"
  Bytes parameter;
#include "penstock/nn/ties.h"
  Bytes gradient;
#include "penstock/nn/ties.h"
  Bytes optimizer;
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  // What a pass goes through: weights, what stands for their gradients, and the activation.
#include "penstock/nn/ties.h"
  [[nodiscard]] std::int64_t gone_through(std::size_t size) const {
#include "penstock/nn/ties.h"
    return 2 * parameter.count + by_size[size].sizes.activation.count;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
};
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
// What one rank knows at the end: the sorts in the order in which they came, and which of them each layer is.
#include "penstock/nn/ties.h"
struct RankProfile {
#include "penstock/nn/ties.h"
  std::vector<Entry> entries;
#include "penstock/nn/ties.h"
  std::vector<std::size_t> entry_of_layer;
#include "penstock/nn/ties.h"
};
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
// Lets all ranks go on together, and stop together when one fails.
#include "penstock/nn/ties.h"
class Meeting {
#include "penstock/nn/ties.h"
 public:
#include "penstock/nn/ties.h"
  explicit Meeting(int ranks) : barrier_(ranks) {}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  void wait() {
#include "penstock/nn/ties.h"
    barrier_.arrive_and_wait();
#include "penstock/nn/ties.h"
    if (failed_) throw Stopped{};
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
  // Of the first rank alone; what it says holds for all at the next `wait`.
#include "penstock/nn/ties.h"
  void set_cycles(int cycles) { cycles_ = cycles; }
#include "penstock/nn/ties.h"
  [[nodiscard]] int cycles() const { return cycles_; }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  // Runs a rank's part. Where it throws, the others stop at their next meeting.
#include "penstock/nn/ties.h"
  void run(const std::function<void()>& part) noexcept {
#include "penstock/nn/ties.h"
    try {
#include "penstock/nn/ties.h"
      part();
#include "penstock/nn/ties.h"
    } catch (const Stopped&) {
#include "penstock/nn/ties.h"
      barrier_.arrive_and_drop();
#include "penstock/nn/ties.h"
    } catch (...) {
#include "penstock/nn/ties.h"
      {
#include "penstock/nn/ties.h"
        const std::scoped_lock lock(mutex_);
#include "penstock/nn/ties.h"
        if (!failure_) failure_ = std::current_exception();
#include "penstock/nn/ties.h"
      }
#include "penstock/nn/ties.h"
      failed_ = true;
#include "penstock/nn/ties.h"
      barrier_.arrive_and_drop();
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
  void rethrow() const {
#include "penstock/nn/ties.h"
    if (failure_) std::rethrow_exception(failure_);
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
 private:
#include "penstock/nn/ties.h"
  struct Stopped {};
#include "penstock/nn/ties.h"
  std::barrier<> barrier_;
#include "penstock/nn/ties.h"
  std::atomic<bool> failed_{false};
#include "penstock/nn/ties.h"
  std::atomic<int> cycles_{0};
#include "penstock/nn/ties.h"
  std::mutex mutex_;
#include "penstock/nn/ties.h"
  std::exception_ptr failure_;
#include "penstock/nn/ties.h"
};
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
// Hands on what it gets, in tensors of its own: as a layer behind another, its backward brings a gradient that nobody
#include "penstock/nn/ties.h"
// else holds.
#include "penstock/nn/ties.h"
struct PassThrough : torch::nn::Module {
#include "penstock/nn/ties.h"
  Tensors forward(const Tensors& inputs) {
#include "penstock/nn/ties.h"
    Tensors outputs;
#include "penstock/nn/ties.h"
    for (const at::Tensor& input : inputs)
#include "penstock/nn/ties.h"
      outputs.push_back(input.defined() && input.requires_grad() ? input * 1.0 : input);
#include "penstock/nn/ties.h"
    return outputs;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
};
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
class RankProfiler {
#include "penstock/nn/ties.h"
 public:
#include "penstock/nn/ties.h"
  RankProfiler(const Network& network, const ProfileSettings& settings, const std::vector<Microbatch>& microbatches,
#include "penstock/nn/ties.h"
               Meeting& meeting, int rank)
#include "penstock/nn/ties.h"
      : network_(network),
#include "penstock/nn/ties.h"
        settings_(settings),
#include "penstock/nn/ties.h"
        meeting_(meeting),
#include "penstock/nn/ties.h"
        leads_(rank == 0),
#include "penstock/nn/ties.h"
        lane_(settings.devices.empty() ? at::Device(at::kCPU)
#include "penstock/nn/ties.h"
                                       : settings.devices[static_cast<std::size_t>(rank) % settings.devices.size()]),
#include "penstock/nn/ties.h"
        instruments_{clock_, memory_, lane_} {
#include "penstock/nn/ties.h"
    lane_.enter({});
#include "penstock/nn/ties.h"
    for (const Microbatch& microbatch : microbatches) {
#include "penstock/nn/ties.h"
      Tensors inputs;
#include "penstock/nn/ties.h"
      Tensors targets;
#include "penstock/nn/ties.h"
      for (const at::Tensor& tensor : microbatch.inputs)
#include "penstock/nn/ties.h"
        inputs.push_back(tensor.defined() ? tensor.detach().to(lane_.device()) : tensor);
#include "penstock/nn/ties.h"
      for (const at::Tensor& tensor : microbatch.targets)
#include "penstock/nn/ties.h"
        targets.push_back(tensor.defined() ? tensor.to(lane_.device()) : tensor);
#include "penstock/nn/ties.h"
      flow_.push_back(std::move(inputs));
#include "penstock/nn/ties.h"
      targets_.push_back(std::move(targets));
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  // First what every sort of layer is; then, knowing how much the layers of a rank go through together, how long it
#include "penstock/nn/ties.h"
  // takes.
#include "penstock/nn/ties.h"
  RankProfile run() {
#include "penstock/nn/ties.h"
    RankProfile profile;
#include "penstock/nn/ties.h"
    std::map<Sort, std::size_t> known;
#include "penstock/nn/ties.h"
    for (std::size_t layer = 0; layer < network_.layers.size(); ++layer) {
#include "penstock/nn/ties.h"
      const auto [found, is_new] = known.emplace(sort_of(layer), profile.entries.size());
#include "penstock/nn/ties.h"
      profile.entry_of_layer.push_back(found->second);
#include "penstock/nn/ties.h"
      if (is_new) profile.entries.push_back(survey(static_cast<std::int64_t>(layer)));
#include "penstock/nn/ties.h"
      flow_ = profile.entries[found->second].outputs;
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    flow_.clear();
#include "penstock/nn/ties.h"
    const std::vector<std::int64_t> of_a_rank = share_of_a_rank(profile);
#include "penstock/nn/ties.h"
    for (Entry& entry : profile.entries) {
#include "penstock/nn/ties.h"
      time(entry, of_a_rank);
#include "penstock/nn/ties.h"
      // Before the meter of its thread is gone.
#include "penstock/nn/ties.h"
      entry.inputs.clear();
#include "penstock/nn/ties.h"
      entry.outputs.clear();
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    return profile;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
 private:
#include "penstock/nn/ties.h"
  [[nodiscard]] Sort sort_of(std::size_t layer) const {
#include "penstock/nn/ties.h"
    const std::string& kind = network_.layers[layer].kind;
#include "penstock/nn/ties.h"
    Sort sort{kind.empty() ? fmt::format("#{}", layer) : kind, {}};
#include "penstock/nn/ties.h"
    sort.second = {layer == 0 ? 1 : 0, layer + 1 == network_.layers.size() ? 1 : 0};
#include "penstock/nn/ties.h"
    for (const Tensors& boundary : flow_) {
#include "penstock/nn/ties.h"
      sort.second.push_back(static_cast<std::int64_t>(boundary.size()));
#include "penstock/nn/ties.h"
      for (const at::Tensor& tensor : boundary) {
#include "penstock/nn/ties.h"
        sort.second.push_back(tensor.defined() ? static_cast<std::int64_t>(tensor.scalar_type()) : -1);
#include "penstock/nn/ties.h"
        if (!tensor.defined()) continue;
#include "penstock/nn/ties.h"
        sort.second.push_back(tensor.requires_grad() ? 1 : 0);
#include "penstock/nn/ties.h"
        sort.second.push_back(tensor.dim());
#include "penstock/nn/ties.h"
        sort.second.insert(sort.second.end(), tensor.sizes().begin(), tensor.sizes().end());
#include "penstock/nn/ties.h"
      }
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    return sort;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  // What the layers of one rank go through for a microbatch, where all ranks have as much. By size.
#include "penstock/nn/ties.h"
  [[nodiscard]] std::vector<std::int64_t> share_of_a_rank(const RankProfile& profile) const {
#include "penstock/nn/ties.h"
    std::vector<std::int64_t> share(settings_.sizes.size());
#include "penstock/nn/ties.h"
    for (std::size_t size = 0; size < share.size(); ++size) {
#include "penstock/nn/ties.h"
      for (const std::size_t entry : profile.entry_of_layer) share[size] += profile.entries[entry].gone_through(size);
#include "penstock/nn/ties.h"
      share[size] /= settings_.ranks;
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    return share;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  [[nodiscard]] StageParts parts_of(std::int64_t layer) const {
#include "penstock/nn/ties.h"
    StageParts parts;
#include "penstock/nn/ties.h"
    parts.first_layer = layer;
#include "penstock/nn/ties.h"
    parts.layers.push_back(build_layer(network_, layer, settings_.seed, lane_.device()));
#include "penstock/nn/ties.h"
    parts.skips = network_.skips;
#include "penstock/nn/ties.h"
    parts.device = lane_.device();
#include "penstock/nn/ties.h"
    parts.seed = settings_.seed;
#include "penstock/nn/ties.h"
    parts.precision = settings_.precision;
#include "penstock/nn/ties.h"
    if (is_last(layer)) parts.loss = network_.loss;
#include "penstock/nn/ties.h"
    return parts;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  [[nodiscard]] bool is_last(std::int64_t layer) const {
#include "penstock/nn/ties.h"
    return static_cast<std::size_t>(layer) + 1 == network_.layers.size();
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  [[nodiscard]] LayerInput input_of(const Entry& entry, std::size_t size) const {
#include "penstock/nn/ties.h"
    return {entry.inputs[size], targets_[size], entry.layer > 0 || !lane_.on_host()};
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  Entry survey(std::int64_t layer) {
#include "penstock/nn/ties.h"
    Entry entry;
#include "penstock/nn/ties.h"
    entry.layer = layer;
#include "penstock/nn/ties.h"
    entry.inputs = flow_;
#include "penstock/nn/ties.h"
    const Bytes before = held(instruments_);
#include "penstock/nn/ties.h"
    StageParts parts = parts_of(layer);
#include "penstock/nn/ties.h"
    const Layer built = parts.layers.front();
#include "penstock/nn/ties.h"
    StageParts followed_parts = parts;
#include "penstock/nn/ties.h"
    followed_parts.layers.emplace_back(std::make_shared<PassThrough>());
#include "penstock/nn/ties.h"
    Stage stage(std::move(parts));
#include "penstock/nn/ties.h"
    Stage followed(std::move(followed_parts));
#include "penstock/nn/ties.h"
    entry.parameter = held(instruments_) - before;
#include "penstock/nn/ties.h"
    for (std::size_t size = 0; size < flow_.size(); ++size) {
#include "penstock/nn/ties.h"
      const LayerInput input = input_of(entry, size);
#include "penstock/nn/ties.h"
      LayerMeasurement measurement(instruments_, stage, input);
#include "penstock/nn/ties.h"
      // Once before it counts: the gradients of the weights are there from then on.
#include "penstock/nn/ties.h"
      measurement.cycle(nullptr);
#include "penstock/nn/ties.h"
      measurement.cycle(&entry.by_size.emplace_back());
#include "penstock/nn/ties.h"
      // Skips would count the layer that is none.
#include "penstock/nn/ties.h"
      if (!is_last(layer) && network_.skips.empty()) measure_inner(followed, input, entry.by_size.back().sizes);
#include "penstock/nn/ties.h"
      entry.outputs.push_back(measurement.outputs());
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    for (const at::Tensor& parameter : built.module().parameters()) {
#include "penstock/nn/ties.h"
      if (parameter.grad().defined()) entry.gradient += Bytes{static_cast<std::int64_t>(parameter.grad().nbytes())};
#include "penstock/nn/ties.h"
      parameter.mutable_grad().reset();
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    return entry;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  void time(Entry& entry, const std::vector<std::int64_t>& of_a_rank) {
#include "penstock/nn/ties.h"
    StageParts parts = parts_of(entry.layer);
#include "penstock/nn/ties.h"
    const Layer built = parts.layers.front();
#include "penstock/nn/ties.h"
    Stage stage(std::move(parts));
#include "penstock/nn/ties.h"
    for (std::size_t size = 0; size < entry.inputs.size(); ++size) {
#include "penstock/nn/ties.h"
      const LayerInput input = input_of(entry, size);
#include "penstock/nn/ties.h"
      const Between between(std::max<std::int64_t>(of_a_rank[size] - entry.gone_through(size), 0), lane_.on_host());
#include "penstock/nn/ties.h"
      LayerMeasurement measurement(instruments_, stage, input, &between);
#include "penstock/nn/ties.h"
      LayerSamples samples = measure_size(measurement);
#include "penstock/nn/ties.h"
      samples.sizes = entry.by_size[size].sizes;
#include "penstock/nn/ties.h"
      samples.for_weights = entry.by_size[size].for_weights;
#include "penstock/nn/ties.h"
      entry.by_size[size] = std::move(samples);
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    time_update(built, entry, of_a_rank.empty() ? 0 : of_a_rank.front());
#include "penstock/nn/ties.h"
    for (const at::Tensor& parameter : built.module().parameters()) parameter.mutable_grad().reset();
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  LayerSamples measure_size(LayerMeasurement& measurement) {
#include "penstock/nn/ties.h"
    LayerSamples samples;
#include "penstock/nn/ties.h"
    meeting_.wait();
#include "penstock/nn/ties.h"
    measurement.cycle(nullptr);
#include "penstock/nn/ties.h"
    const Milliseconds start = clock_.now();
#include "penstock/nn/ties.h"
    for (int cycle = 1; cycle < warm_up_cycles; ++cycle) measurement.cycle(nullptr);
#include "penstock/nn/ties.h"
    const double of_a_cycle = (clock_.now() - start).count / (warm_up_cycles - 1);
#include "penstock/nn/ties.h"
    if (leads_)
#include "penstock/nn/ties.h"
      meeting_.set_cycles(static_cast<int>(
#include "penstock/nn/ties.h"
          std::clamp(settings_.budget.count / std::max(of_a_cycle, 1e-3), 1.0 * fewest_cycles, 1.0 * most_cycles)));
#include "penstock/nn/ties.h"
    meeting_.wait();
#include "penstock/nn/ties.h"
    for (int cycle = 0; cycle < meeting_.cycles(); ++cycle) {
#include "penstock/nn/ties.h"
      // Together at every cycle, so that none measures alone at the end.
#include "penstock/nn/ties.h"
      meeting_.wait();
#include "penstock/nn/ties.h"
      measurement.cycle(&samples);
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    return samples;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  void measure_inner(Stage& followed, const LayerInput& input, LayerAtSize& sizes) {
#include "penstock/nn/ties.h"
    LayerSamples samples;
#include "penstock/nn/ties.h"
    LayerMeasurement(instruments_, followed, input).cycle(&samples);
#include "penstock/nn/ties.h"
    const Bytes beside = samples.sizes.activation - sizes.activation;
#include "penstock/nn/ties.h"
    sizes.inner_workspace = samples.sizes.backward_workspace + beside;
#include "penstock/nn/ties.h"
    sizes.inner_input_workspace = samples.sizes.input_workspace + beside;
#include "penstock/nn/ties.h"
    sizes.inner_deferred = samples.sizes.deferred;
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  void time_update(const Layer& built, Entry& entry, std::int64_t of_a_rank) {
#include "penstock/nn/ties.h"
    if (!settings_.optimizer) return;
#include "penstock/nn/ties.h"
    const Bytes before = held(instruments_);
#include "penstock/nn/ties.h"
    const std::function<void()> update = settings_.optimizer(built);
#include "penstock/nn/ties.h"
    entry.optimizer = held(instruments_) - before;
#include "penstock/nn/ties.h"
    update();
#include "penstock/nn/ties.h"
    const Between between(std::max<std::int64_t>(of_a_rank - entry.gone_through(0), 0), lane_.on_host());
#include "penstock/nn/ties.h"
    for (int count = 0; count < updates; ++count) {
#include "penstock/nn/ties.h"
      meeting_.wait();
#include "penstock/nn/ties.h"
      between.pass({});
#include "penstock/nn/ties.h"
      const Milliseconds start = clock_.now();
#include "penstock/nn/ties.h"
      update();
#include "penstock/nn/ties.h"
      lane_.wait();
#include "penstock/nn/ties.h"
      entry.update_ms.push_back((clock_.now() - start).count);
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
  const Network& network_;
#include "penstock/nn/ties.h"
  const ProfileSettings& settings_;
#include "penstock/nn/ties.h"
  Meeting& meeting_;
#include "penstock/nn/ties.h"
  bool leads_;
#include "penstock/nn/ties.h"
  MemoryMeter memory_;  // before all that allocates
#include "penstock/nn/ties.h"
  SteadyClock clock_;
#include "penstock/nn/ties.h"
  DeviceLane lane_;
#include "penstock/nn/ties.h"
  Instruments instruments_;
#include "penstock/nn/ties.h"
  std::vector<Tensors> flow_;  // what flows into the present layer, by size
#include "penstock/nn/ties.h"
  std::vector<Tensors> targets_;
#include "penstock/nn/ties.h"
};
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
void check(const ProfileSettings& settings) {
#include "penstock/nn/ties.h"
  if (settings.ranks < 1 || settings.threads_per_rank < 1)
#include "penstock/nn/ties.h"
    throw bad_input(fmt::format("a profile on {} ranks of {} threads", settings.ranks, settings.threads_per_rank),
#include "penstock/nn/ties.h"
                    "at least 1 of each", "change --ranks or --threads-per-rank");
#include "penstock/nn/ties.h"
  const auto& sizes = settings.sizes;
#include "penstock/nn/ties.h"
  if (sizes.empty() || sizes.front() < 1 || !std::is_sorted(sizes.begin(), sizes.end(), std::less_equal<>()))
#include "penstock/nn/ties.h"
    throw bad_input("microbatch sizes that do not ascend from 1 or more", "at least one size, ascending",
#include "penstock/nn/ties.h"
                    "correct the sizes");
#include "penstock/nn/ties.h"
}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
MeasuredTime time_of(const std::vector<double>& milliseconds) {
#include "penstock/nn/ties.h"
  return {{quantile(milliseconds, 0.5)}, {quantile(milliseconds, 0.75) - quantile(milliseconds, 0.25)}};
#include "penstock/nn/ties.h"
}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
// The times of all ranks together; bytes are the first one's.
#include "penstock/nn/ties.h"
LayerCost cost_of(const std::vector<RankProfile>& ranks, std::size_t entry, const std::vector<std::int64_t>& sizes) {
#include "penstock/nn/ties.h"
  const Entry& first = ranks.front().entries[entry];
#include "penstock/nn/ties.h"
  const auto of_all = [&](const auto& of_entry) {
#include "penstock/nn/ties.h"
    std::vector<double> all;
#include "penstock/nn/ties.h"
    for (const RankProfile& rank : ranks) {
#include "penstock/nn/ties.h"
      const std::vector<double>& of_rank = of_entry(rank.entries[entry]);
#include "penstock/nn/ties.h"
      all.insert(all.end(), of_rank.begin(), of_rank.end());
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
    return all;
#include "penstock/nn/ties.h"
  };
#include "penstock/nn/ties.h"
  LayerCost cost;
#include "penstock/nn/ties.h"
  cost.parameter = first.parameter;
#include "penstock/nn/ties.h"
  cost.gradient = first.gradient;
#include "penstock/nn/ties.h"
  cost.optimizer = first.optimizer;
#include "penstock/nn/ties.h"
  cost.update = time_of(of_all([](const Entry& of_rank) -> const auto& { return of_rank.update_ms; })).median;
#include "penstock/nn/ties.h"
  for (std::size_t size = 0; size < sizes.size(); ++size) {
#include "penstock/nn/ties.h"
    LayerAtSize at_size = first.by_size[size].sizes;
#include "penstock/nn/ties.h"
    at_size.samples = sizes[size];
#include "penstock/nn/ties.h"
    const auto time = [&](std::vector<double> LayerSamples::* member) {
#include "penstock/nn/ties.h"
      return time_of(of_all([&](const Entry& of_rank) -> const auto& { return of_rank.by_size[size].*member; }));
#include "penstock/nn/ties.h"
    };
#include "penstock/nn/ties.h"
    at_size.forward = time(&LayerSamples::forward);
#include "penstock/nn/ties.h"
    at_size.input_backward = time(&LayerSamples::input_backward);
#include "penstock/nn/ties.h"
    at_size.weight_backward = time(&LayerSamples::weight_backward);
#include "penstock/nn/ties.h"
    at_size.backward = time(&LayerSamples::backward);
#include "penstock/nn/ties.h"
    cost.sizes.push_back(at_size);
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
  const LayerSamples& largest = first.by_size.back();
#include "penstock/nn/ties.h"
  if (largest.sizes.activation.count > 0)
#include "penstock/nn/ties.h"
    cost.weight_activation_share =
#include "penstock/nn/ties.h"
        std::min(static_cast<double>(largest.for_weights.count) / static_cast<double>(largest.sizes.activation.count),
#include "penstock/nn/ties.h"
                 largest_weight_activation_share);
#include "penstock/nn/ties.h"
  return cost;
#include "penstock/nn/ties.h"
}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
std::vector<LayerTie> ties_of(const Network& network, std::uint64_t seed) {
#include "penstock/nn/ties.h"
  std::vector<LayerTie> ties;
#include "penstock/nn/ties.h"
  for (const TieGroup& group : tie_groups(network.ties)) {
#include "penstock/nn/ties.h"
    const Layer layer = build_layer(network, group.owner.layer, seed, at::kCPU);
#include "penstock/nn/ties.h"
    const auto parameters = layer.module().named_parameters();
#include "penstock/nn/ties.h"
    const at::Tensor* parameter = parameters.find(group.owner.name);
#include "penstock/nn/ties.h"
    if (parameter == nullptr)
#include "penstock/nn/ties.h"
      throw bad_input(fmt::format("{} in a tie", to_text(group.owner)), "a parameter of that layer",
#include "penstock/nn/ties.h"
                      "check the names in Network::ties");
#include "penstock/nn/ties.h"
    for (const ParameterAddress& member : group.members)
#include "penstock/nn/ties.h"
      // Within a layer nothing travels.
#include "penstock/nn/ties.h"
      if (member.layer != group.owner.layer)
#include "penstock/nn/ties.h"
        ties.push_back({{group.owner.layer, group.owner.name},
#include "penstock/nn/ties.h"
                        {member.layer, member.name},
#include "penstock/nn/ties.h"
                        {static_cast<std::int64_t>(parameter->nbytes())}});
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
  return ties;
#include "penstock/nn/ties.h"
}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
std::vector<Microbatch> microbatches_of(const ProfileSettings& settings) {
#include "penstock/nn/ties.h"
  std::vector<Microbatch> microbatches;
#include "penstock/nn/ties.h"
  microbatches.reserve(settings.sizes.size());
#include "penstock/nn/ties.h"
  for (const std::int64_t size : settings.sizes) microbatches.push_back(settings.microbatch(size));
#include "penstock/nn/ties.h"
  return microbatches;
#include "penstock/nn/ties.h"
}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
}  // namespace
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
LayerCosts profile_layers(const Network& network, const ProfileSettings& settings) {
#include "penstock/nn/ties.h"
  check_network(network);
#include "penstock/nn/ties.h"
  check(settings);
#include "penstock/nn/ties.h"
  const std::vector<Microbatch> microbatches = microbatches_of(settings);
#include "penstock/nn/ties.h"
  Meeting meeting(settings.ranks);
#include "penstock/nn/ties.h"
  std::vector<RankProfile> ranks(static_cast<std::size_t>(settings.ranks));
#include "penstock/nn/ties.h"
  std::vector<std::thread> threads;
#include "penstock/nn/ties.h"
  threads.reserve(ranks.size());
#include "penstock/nn/ties.h"
  const auto profile = [&](int rank) {
#include "penstock/nn/ties.h"
    at::set_num_threads(settings.threads_per_rank);
#include "penstock/nn/ties.h"
    ranks[static_cast<std::size_t>(rank)] = RankProfiler(network, settings, microbatches, meeting, rank).run();
#include "penstock/nn/ties.h"
  };
#include "penstock/nn/ties.h"
  for (int rank = 0; rank < settings.ranks; ++rank) {
#include "penstock/nn/ties.h"
    try {
#include "penstock/nn/ties.h"
      threads.push_back(start_thread([&, rank] { meeting.run([&] { profile(rank); }); }));
#include "penstock/nn/ties.h"
    } catch (const Error&) {
#include "penstock/nn/ties.h"
      meeting.run([] { throw; });  // the others are told as if the rank had failed
#include "penstock/nn/ties.h"
    }
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
  for (std::thread& thread : threads) thread.join();
#include "penstock/nn/ties.h"
  meeting.rethrow();
#include "penstock/nn/ties.h"
  LayerCosts costs;
#include "penstock/nn/ties.h"
  const RankProfile& first = ranks.front();
#include "penstock/nn/ties.h"
  std::map<std::size_t, std::size_t> layer_of_entry;
#include "penstock/nn/ties.h"
  for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
#include "penstock/nn/ties.h"
    const std::size_t entry = first.entry_of_layer[layer];
#include "penstock/nn/ties.h"
    const auto [like, is_new] = layer_of_entry.emplace(entry, layer);
#include "penstock/nn/ties.h"
    LayerCost cost = is_new ? cost_of(ranks, entry, settings.sizes) : costs.layers[like->second];
#include "penstock/nn/ties.h"
    if (!is_new) cost.like = like->second;
#include "penstock/nn/ties.h"
    cost.name = fmt::format("{} {}", layer, network.layers[layer].name);
#include "penstock/nn/ties.h"
    costs.layers.push_back(std::move(cost));
#include "penstock/nn/ties.h"
  }
#include "penstock/nn/ties.h"
  if (!settings.devices.empty() && !settings.devices.front().is_cpu())
#include "penstock/nn/ties.h"
    for (const at::Tensor& input : microbatches.back().inputs)
#include "penstock/nn/ties.h"
      if (input.defined())
#include "penstock/nn/ties.h"
        costs.input_bytes_per_sample += static_cast<std::int64_t>(input.nbytes()) / settings.sizes.back();
#include "penstock/nn/ties.h"
  // Executors detach what comes from outside.
#include "penstock/nn/ties.h"
  costs.input_needs_gradient = false;
#include "penstock/nn/ties.h"
  costs.default_link = profile_link(settings);
#include "penstock/nn/ties.h"
  costs.ties = ties_of(network, settings.seed);
#include "penstock/nn/ties.h"
  return costs;
#include "penstock/nn/ties.h"
}
#include "penstock/nn/ties.h"

#include "penstock/nn/ties.h"
}  // namespace penstock
#include "penstock/nn/ties.h"
