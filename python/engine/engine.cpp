#include "engine/engine.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include <torch/csrc/autograd/python_variable.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/exec/memory.h"

#include "engine/listening.h"
#include "engine/python_layer.h"

namespace penstock::python {
namespace {

py::object module_from(const LayerSource& source, std::size_t layer, const BuiltModules* built) {
  py::object module = *source.made;
  if (source.is_factory)
    module = (*source.made)();
  else if (built == nullptr || built->has(layer))
    // Another rank holds the layer too and starts equal, or it is only examined.
    module = py::module_::import("copy").attr("deepcopy")(*source.made);
  if (!py::isinstance(module, py::module_::import("torch").attr("nn").attr("Module")))
    throw bad_input(fmt::format("the factory of layer {} returned a {}", source.name, type_name(module)),
                    "a torch.nn.Module", "let it return the layer");
  return module;
}

Layer built_from(const LayerSource& source, std::size_t layer, BuiltModules* built,
                 const std::shared_ptr<Crossing>& crossing) {
  const Crossing::Lock lock(*crossing);
  const std::string name = fmt::format("layer {}", source.name);
  try {
    const py::object module = module_from(source, layer, built);
    PythonModule::Known known;
    const auto made =
        std::make_shared<PythonLayer>(module, fmt::format("{} ({})", name, type_name(module)), crossing, known);
    if (built != nullptr) built->add(layer, crossing->hold(module));
    return Layer(made);
  } catch (py::error_already_set& raised) {
    crossing->raise(raised, name + ": ");
  }
}

Loss loss_from(const py::object& loss, const Tensors& outputs, const Tensors& targets, Crossing& crossing) {
  const Crossing::Lock lock(crossing);
  try {
    const auto pair = loss(tuple_of(outputs), tuple_of(targets)).cast<py::tuple>();
    return {pair[0].cast<at::Tensor>(), pair[1].cast<double>()};
  } catch (py::error_already_set& raised) {
    crossing.raise(raised, "the loss: ");
  }
}

std::optional<std::int64_t> step_of_folder(const std::filesystem::path& folder) {
  const std::string name = folder.filename().string();
  constexpr std::string_view start = "step-";
  if (!name.starts_with(start)) return std::nullopt;
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data() + start.size(), name.data() + name.size(), step);
  return error == std::errc() && end == name.data() + name.size() ? std::optional(step) : std::nullopt;
}

CheckpointId checkpoint_in(const std::filesystem::path& given) {
  const std::filesystem::path folder = given.filename().empty() ? given.parent_path() : given;
  if (const auto step = step_of_folder(folder)) return {*step, folder};
  // A run of the command line keeps them in a folder of their own.
  for (const auto& place : {folder, folder / "checkpoints"})
    if (const auto found = latest_whole_checkpoint(place)) return *found;
  throw bad_input(shortened(folder.string()) + " holds no whole checkpoint",
                  "a folder that `save` or penstock train wrote", "correct the path");
}

}  // namespace

py::list BuiltModules::of(std::size_t layer) const {
  py::list modules;
  for (const Held& module : by_layer_.at(layer)) modules.append(*module);
  return modules;
}

Network network_of(const std::vector<LayerSource>& layers, const py::object& loss, const std::vector<Tie>& ties,
                   const std::vector<Skip>& skips, const std::shared_ptr<BuiltModules>& built,
                   const std::shared_ptr<Crossing>& crossing) {
  Network network;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerSource& source = layers[layer];
    network.layers.push_back({source.name, "", [source, layer, built, crossing] {
                                return built_from(source, layer, built.get(), crossing);
                              }});
  }
  network.loss = [held = crossing->hold(loss), crossing](const Tensors& outputs, const Tensors& targets) {
    return loss_from(*held, outputs, targets, *crossing);
  };
  network.ties = ties;
  network.skips = skips;
  return network;
}

class Engine::Turn {
 public:
  explicit Turn(Engine& engine) : engine_(engine) {
    if (engine_.process_ != getpid())
      throw bad_input("a pipeline of the process that this one was forked from", "one of this process's own",
                      "make the pipeline behind the fork");
    const std::scoped_lock lock(engine_.mutex_);
    if (engine_.is_closed()) throw bad_input("a pipeline that was closed", "one that was not", "make a new one");
    if (engine_.caller_)
      throw bad_input("a call of a pipeline that another call is at work with", "one call at a time",
                      "wait for the other thread's, and make none from within a layer");
    engine_.caller_ = std::this_thread::get_id();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  Turn(Turn&&) = delete;
  Turn& operator=(Turn&&) = delete;
  ~Turn() {
    {
      const std::scoped_lock lock(engine_.mutex_);
      engine_.caller_.reset();
    }
    engine_.free_.notify_all();
  }

 private:
  Engine& engine_;
};

template <class Work>
auto Engine::with_pipeline(Work work) {
  const Turn turn(*this);
  return run_listening(*crossing_, [&] {
    try {
      return work(*pipeline_);
    } catch (const std::exception& error) {
      if (group_) group_->abort(error.what());
      throw;
    }
  });
}

Engine::Engine(Network network, const Schedule& schedule, PipelineSettings settings,
               std::shared_ptr<BuiltModules> built, std::shared_ptr<Crossing> crossing,
               std::optional<SharedPipeline> shared)
    : built_(std::move(built)),
      crossing_(std::move(crossing)),
      microbatches_(schedule.microbatches),
      process_(getpid()) {
  cut_ = settings.cut;
  if (cut_.empty()) cut_ = uniform_cut(static_cast<std::int64_t>(network.layers.size()), schedule.stages);
  const VerifiedSchedule verified = verify(schedule);
  keep_freed_memory();
  try {
    if (shared) meet(std::move(*shared), verified->ranks(), settings);
    run_listening(*crossing_, [&] {
      try {
        pipeline_ = std::make_unique<Pipeline>(std::move(network), verified, std::move(settings), group_.get());
        // A layer that failed elsewhere is everybody's error.
        if (group_) static_cast<void>(pipeline_->exchange({}));
      } catch (const std::exception& error) {
        if (group_) group_->abort(error.what());
        throw;
      }
    });
  } catch (...) {
    {
      const py::gil_scoped_release ranks_go_on;
      pipeline_.reset();
    }
    end_group();
    throw;
  }
}

void Engine::meet(SharedPipeline shared, int ranks, PipelineSettings& settings) {
  ProcessSettings part = shared.part;
  part.ranks = ranks;
  if (settings.threads_per_rank == 0) settings.threads_per_rank = default_threads(ranks_of_machine(part));
  run_listening(*crossing_, [&] { group_ = join(std::move(shared), ranks, settings.devices, crossing_); });
  process_of_all_ = group_->process();
  processes_ = group_->processes();
  crossing_->on_second_interrupt([this] { group_->abort(fmt::format("process {} was interrupted", process_of_all_)); });
}

Engine::~Engine() {
  // A thread cannot wait for its own end.
  if (crossing_->is_on_its_thread())
    leave_all();
  else
    end({});
}

// Waits a little for the others to be done too.
void Engine::end_group() {
  crossing_->on_second_interrupt({});
  const py::gil_scoped_release others_go_on;
  group_.reset();
}

// The threads that their end would wait for are not there, or do not end.
void Engine::leave_all() {
  static_cast<void>(pipeline_.release());  // NOLINT(bugprone-unused-return-value)
  static_cast<void>(group_.release());     // NOLINT(bugprone-unused-return-value)
}

bool Engine::is_within_call() {
  const std::scoped_lock lock(mutex_);
  return caller_ == std::this_thread::get_id() || crossing_->is_on_its_thread();
}

// Whether the call that another thread is in has ended; nobody begins another.
bool Engine::wait_for_turn(std::optional<int> patience_s) {
  const py::gil_scoped_release others_go_on;
  std::unique_lock lock(mutex_);
  closing_ = true;
  if (!caller_) return true;
  crossing_->close();
  if (group_) group_->abort("a process has closed the pipeline");
  const auto is_free = [&] { return !caller_; };
  if (patience_s) return free_.wait_for(lock, std::chrono::seconds(*patience_s), is_free);
  free_.wait(lock, is_free);
  return true;
}

void Engine::close(std::optional<int> patience_s) {
  if (pipeline_ != nullptr && process_ == getpid() && is_within_call())
    throw bad_input("a pipeline that is closed from within one of its own calls", "a call from outside of it",
                    "close it when its step has ended");
  end(patience_s);
}

void Engine::end(std::optional<int> patience_s) {
  if (pipeline_ == nullptr) return;
  if (process_ != getpid() || !wait_for_turn(patience_s)) return leave_all();
  // With the interpreter's lock, so that one thread alone takes it.
  std::unique_ptr<Pipeline> pipeline = std::move(pipeline_);
  if (pipeline == nullptr) return;
  {
    const py::gil_scoped_release ranks_go_on;
    pipeline.reset();
  }
  end_group();
  built_->clear();
  crossing_->forget();
}

void Engine::abandon(const std::string& reason, std::optional<int> patience_s) {
  if (group_ && process_ == getpid()) {
    const py::gil_scoped_release others_go_on;
    group_->abort(reason);
  }
  close(patience_s);
}

std::vector<Microbatch> Engine::cut_minibatch(const Minibatch& minibatch, bool as_in_training) const {
  if (as_in_training) return split_minibatch(minibatch, microbatches_);
  std::int64_t samples = microbatches_;
  for (const Argument& input : minibatch.inputs)
    if (input.tensor.defined() && input.split_dimension && input.tensor.dim() > 0)
      samples = std::min(samples, input.tensor.size(*input.split_dimension));
  return split_minibatch(minibatch, static_cast<int>(std::max<std::int64_t>(samples, 1)));
}

EngineStep Engine::step(const Minibatch& minibatch, double learning_rate, bool keep_outputs) {
  const std::vector<Microbatch> parts = cut_minibatch(minibatch, /*as_in_training=*/true);
  static_cast<void>(crossing_->take_waited_ms());
  return with_pipeline([&](Pipeline& pipeline) {
    UpdateSettings settings;
    settings.step = steps_;
    settings.learning_rate = learning_rate;
    settings.keep_outputs = keep_outputs;
    EngineStep done{pipeline.step(parts, settings), crossing_->take_waited_ms()};
    ++steps_;
    return done;
  });
}

std::pair<double, double> Engine::evaluate(const Minibatch& minibatch) {
  const std::vector<Microbatch> parts = cut_minibatch(minibatch, /*as_in_training=*/false);
  return with_pipeline([&](Pipeline& pipeline) {
    const Loss loss = pipeline.evaluate({parts}).front();
    return std::pair(loss.sum.item<double>(), loss.weight);
  });
}

Tensors Engine::forward(const Minibatch& minibatch) {
  const std::vector<Microbatch> parts = cut_minibatch(minibatch, /*as_in_training=*/false);
  return with_pipeline([&](Pipeline& pipeline) { return merge_outputs(pipeline.forward(parts)); });
}

void Engine::settle() {
  with_pipeline([](Pipeline& pipeline) { static_cast<void>(pipeline.peak_memory()); });
}

void Engine::save(const std::string& folder, const std::string& metadata) {
  with_pipeline([&](Pipeline& pipeline) {
    if (group_) {
      save_together(pipeline, *group_, folder, steps_, metadata);
      return;
    }
    CheckpointWriter writer(folder, steps_);
    pipeline.save(writer.own_part());
    writer.commit(metadata);
  });
}

std::pair<std::int64_t, std::string> Engine::load(const std::string& folder, bool with_optimizer) {
  FoundCheckpoint found;
  if (process_of_all_ == 0) {
    try {
      found.id = checkpoint_in(folder);
    } catch (const Error& error) {
      if (!group_) throw;
      found.refusal = error.what();
    }
  }
  if (group_) found = with_pipeline([&](Pipeline& pipeline) { return tell_all(pipeline, found); });
  // The same in every process, so that all may go on.
  if (!found.refusal.empty()) throw Error(ErrorKind::BadInput, found.refusal);
  return with_pipeline([&](Pipeline& pipeline) {
    const CheckpointReader reader(found.id);
    pipeline.load(reader, reader.step(), with_optimizer);
    steps_ = reader.step();
    return std::pair(reader.step(), reader.metadata());
  });
}

std::vector<StageReport> Engine::report() {
  return with_pipeline([](Pipeline& pipeline) { return pipeline.report(); });
}

std::vector<std::int64_t> Engine::peak_memory() {
  return with_pipeline([](Pipeline& pipeline) {
    std::vector<std::int64_t> peaks;
    for (const Bytes peak : pipeline.peak_memory()) peaks.push_back(peak.count);
    return peaks;
  });
}

}  // namespace penstock::python
