// A pipeline whose layers, loss and optimizer may be Python's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "penstock/pipeline/pipeline.h"

#include "engine/held.h"
#include "engine/processes.h"

namespace penstock::python {

// A layer as the package hands it over.
struct LayerSource {
  std::string name;
  Held made;  // a module, or a callable that makes one
  bool is_factory = false;
};

// The modules of each layer, one for each rank that holds it, in the order in which they were made.
class BuiltModules {
 public:
  explicit BuiltModules(std::size_t layers) : by_layer_(layers) {}

  void add(std::size_t layer, Held module) { by_layer_.at(layer).push_back(std::move(module)); }
  [[nodiscard]] bool has(std::size_t layer) const { return !by_layer_.at(layer).empty(); }
  [[nodiscard]] py::list of(std::size_t layer) const;
  void clear() { by_layer_.clear(); }

 private:
  std::vector<std::vector<Held>> by_layer_;
};

// The network of these layers. `built` keeps the modules; where it is null, they are copies that nobody keeps. `loss`
// gets two tuples, of outputs and of targets, and returns the sum and its weight.
[[nodiscard]] Network network_of(const std::vector<LayerSource>& layers, const py::object& loss,
                                 const std::vector<Tie>& ties, const std::vector<Skip>& skips,
                                 const std::shared_ptr<BuiltModules>& built, const std::shared_ptr<Crossing>& crossing);

// What a step gave, and what it took of the interpreter's lock.
struct EngineStep {
  StepResult result;
  double lock_wait_ms = 0;  // of all layers together, before their forward began
};

// Calls come with the interpreter's lock and release it while ranks work. Ctrl-C lets the step that is on its way end
// and is raised then; a second one ends it at the next layer, which ends the pipeline. Where several processes share
// it, all make the same calls in the same order, and what ends one of them ends all. One call at a time: another
// thread's, or one from within a layer, is refused (BadInput).
class Engine {
 public:
  Engine(Network network, const Schedule& schedule, PipelineSettings settings, std::shared_ptr<BuiltModules> built,
         std::shared_ptr<Crossing> crossing, std::optional<SharedPipeline> shared);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  Engine(Engine&&) = delete;
  Engine& operator=(Engine&&) = delete;
  ~Engine();

  [[nodiscard]] EngineStep step(const Minibatch& minibatch, double learning_rate, bool keep_outputs);
  [[nodiscard]] std::pair<double, double> evaluate(const Minibatch& minibatch);
  [[nodiscard]] Tensors forward(const Minibatch& minibatch);

  // Waits until the weights stay.
  void settle();
  void save(const std::string& folder, const std::string& metadata);
  // The newest whole checkpoint of a folder, or the one that the folder is. Returns its step and metadata.
  std::pair<std::int64_t, std::string> load(const std::string& folder, bool with_optimizer);
  [[nodiscard]] std::vector<StageReport> report();
  [[nodiscard]] std::vector<std::int64_t> peak_memory();
  // None where the layer is another process's.
  [[nodiscard]] py::list modules_of(std::size_t layer) const { return built_->of(layer); }

  // Updates so far, those that were loaded among them.
  [[nodiscard]] std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  [[nodiscard]] int microbatches() const { return microbatches_; }
  [[nodiscard]] const Cut& cut() const { return cut_; }
  [[nodiscard]] int process() const { return process_of_all_; }
  [[nodiscard]] int processes() const { return processes_; }

  // Ends the ranks' threads and lets go of the layers, and ends the call that another thread is in at its next layer.
  // Any number of times; in a process that was forked later, where the threads are not, it leaves all as it is, and so
  // it does where that call has not ended after `patience_s` seconds. Throws Error (BadInput) from within that call.
  void close(std::optional<int> patience_s = std::nullopt);
  // The same, for a reason that the other processes are told, whose next step it ends.
  void abandon(const std::string& reason, std::optional<int> patience_s = std::nullopt);
  // What it keeps of Python, for the collector of cycles.
  int visit(visitproc visitor, void* argument) const { return crossing_->visit(visitor, argument); }
  [[nodiscard]] bool is_closed() const { return closing_ || pipeline_ == nullptr; }

 private:
  // That of the one thread that calls.
  class Turn;

  template <class Work>
  auto with_pipeline(Work work);
  void meet(SharedPipeline shared, int ranks, PipelineSettings& settings);
  void end(std::optional<int> patience_s);
  void end_group();
  void leave_all();
  [[nodiscard]] bool is_within_call();
  [[nodiscard]] bool wait_for_turn(std::optional<int> patience_s);
  [[nodiscard]] std::vector<Microbatch> cut_minibatch(const Minibatch& minibatch, bool as_in_training) const;

  std::shared_ptr<BuiltModules> built_;
  std::shared_ptr<Crossing> crossing_;
  int microbatches_ = 1;
  Cut cut_;
  std::atomic<std::int64_t> steps_ = 0;
  std::int64_t process_;
  int process_of_all_ = 0;
  int processes_ = 1;
  std::unique_ptr<ProcessGroup> group_;  // null: all ranks are threads of this process
  std::unique_ptr<Pipeline> pipeline_;
  std::mutex mutex_;
  std::condition_variable free_;
  std::optional<std::thread::id> caller_;  // of the call that is on its way; under the mutex
  std::atomic<bool> closing_ = false;
};

}  // namespace penstock::python
