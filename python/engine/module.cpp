// The part of the Python package that stands on torch: _engine, which penstock.engine is the face of.
#include <fmt/format.h>
#include <pybind11/stl.h>
#include <tuple>

#include <torch/csrc/utils/pybind.h>

#include "penstock/base/error.h"

#include "engine/engine.h"
#include "engine/examine.h"
#include "engine/given.h"
#include "errors.h"

namespace penstock::python {
namespace {

// As penstock._core.Timeline takes it.
py::tuple timeline_of(const EngineStep& step) {
  std::vector<std::vector<std::tuple<int, std::int32_t, std::int32_t, bool, double, double>>> events;
  for (const auto& rank_entries : step.result.timeline.ranks) {
    auto& rank = events.emplace_back();
    for (const Event& event : rank_entries)
      rank.emplace_back(static_cast<int>(event.action.kind), event.action.stage.value, event.action.microbatch.value,
                        event.action.overlaps_next, event.start.count, event.end.count);
  }
  std::vector<std::vector<std::pair<double, std::int64_t>>> memory;
  for (const auto& rank_entries : step.result.timeline.memory) {
    auto& rank = memory.emplace_back();
    for (const MemorySample& sample : rank_entries) rank.emplace_back(sample.time.count, sample.bytes.count);
  }
  return py::make_tuple(events, memory);
}

// Joined over the microbatches; nothing where they were not asked for.
std::vector<at::Tensor> outputs_of(const EngineStep& step) {
  if (step.result.outputs.empty()) return {};
  return merge_outputs(step.result.outputs);
}

std::vector<std::pair<double, double>> losses_of(const EngineStep& step) {
  std::vector<std::pair<double, double>> losses;
  losses.reserve(step.result.losses.size());
  for (const MicrobatchLoss& loss : step.result.losses) losses.emplace_back(loss.sum, loss.weight);
  return losses;
}

std::vector<std::int64_t> peaks_of(const EngineStep& step) {
  std::vector<std::int64_t> peaks;
  peaks.reserve(step.result.peak_memory.size());
  for (const Bytes peak : step.result.peak_memory) peaks.push_back(peak.count);
  return peaks;
}

std::unique_ptr<Engine> make_engine(const std::vector<LayerTuple>& layers, const py::object& loss,
                                    const std::string& schedule, const std::vector<TieTuple>& ties,
                                    const std::vector<SkipTuple>& skips, const py::dict& settings) {
  Described made = described(layers, loss, ties, skips, /*keeps_modules=*/true);
  return std::make_unique<Engine>(std::move(made.network), parse_schedule(schedule),
                                  settings_of(settings, made.crossing), made.built, made.crossing,
                                  shared_pipeline_of(settings));
}

py::list report_of(Engine& engine) {
  py::list stages;
  for (const StageReport& stage : engine.report()) {
    const py::dict one;
    one["stage"] = stage.stage;
    one["rank"] = stage.rank;
    one["first_layer"] = stage.first_layer;
    one["layers"] = stage.layers;
    one["parameters"] = stage.parameters;
    one["busy_share"] = stage.busy_share;
    one["peak_bytes"] = stage.peak_memory.count;
    one["sent_bytes"] = stage.sent.count;
    stages.append(one);
  }
  return stages;
}

void add_step_type(py::module_& module) {
  py::class_<EngineStep>(module, "Step")
      .def_property_readonly("loss", [](const EngineStep& self) { return self.result.loss; })
      .def_property_readonly("weight", [](const EngineStep& self) { return self.result.weight; })
      .def_property_readonly("gradient_norm", [](const EngineStep& self) { return self.result.gradient_norm; })
      .def_property_readonly("skipped", [](const EngineStep& self) { return self.result.skipped; })
      .def_property_readonly("loss_scale", [](const EngineStep& self) { return self.result.loss_scale; })
      .def_property_readonly("losses", &losses_of)
      .def_property_readonly("peak_bytes", &peaks_of)
      .def_readonly("lock_wait_ms", &EngineStep::lock_wait_ms)
      .def("outputs", &outputs_of)
      .def("timeline", &timeline_of);
}

// Layers, losses and optimizers may refer to the pipeline that keeps them: the collector of cycles has to know.
void let_collect_cycles(PyHeapTypeObject* heap_type) {
  PyTypeObject& type = heap_type->ht_type;
  type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  type.tp_traverse = [](PyObject* self, visitproc visitor, void* argument) {
    const int answer = visitor(reinterpret_cast<PyObject*>(Py_TYPE(self)), argument);
    if (answer != 0 || !py::detail::is_holder_constructed(self)) return answer;
    return py::handle(self).cast<Engine&>().visit(visitor, argument);
  };
  type.tp_clear = [](PyObject* self) {
    if (!py::detail::is_holder_constructed(self)) return 0;
    try {
      py::handle(self).cast<Engine&>().close();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
      PyErr_WriteUnraisable(self);
    }
    return 0;
  };
}

void add_engine_type(py::module_& module) {
  py::class_<Engine>(module, "Engine", py::custom_type_setup(&let_collect_cycles))
      .def(py::init(&make_engine), py::arg("layers"), py::arg("loss"), py::arg("schedule"), py::arg("ties"),
           py::arg("skips"), py::arg("settings"))
      .def("step",
           [](Engine& self, const Arguments& inputs, const Arguments& targets, double learning_rate,
              bool keep_outputs) { return self.step(minibatch_of(inputs, targets), learning_rate, keep_outputs); })
      .def("evaluate", [](Engine& self, const Arguments& inputs,
                          const Arguments& targets) { return self.evaluate(minibatch_of(inputs, targets)); })
      .def("forward", [](Engine& self, const Arguments& inputs) { return self.forward(minibatch_of(inputs, {})); })
      .def("settle", &Engine::settle)
      .def("save", &Engine::save)
      .def("load", &Engine::load)
      .def("report", &report_of)
      .def("peak_memory", &Engine::peak_memory)
      .def("modules_of", &Engine::modules_of)
      .def_property("steps", &Engine::steps, &Engine::set_steps)
      .def_property_readonly("microbatches", &Engine::microbatches)
      .def_property_readonly("cut", &Engine::cut)
      .def_property_readonly("process", &Engine::process)
      .def_property_readonly("processes", &Engine::processes)
      .def_property_readonly("closed", &Engine::is_closed)
      .def("abandon", &Engine::abandon, py::arg("reason"), py::arg("patience_s") = py::none())
      .def("close", &Engine::close, py::arg("patience_s") = py::none());
}

}  // namespace
}  // namespace penstock::python

PYBIND11_MODULE(_engine, module) {
  module.doc() = "The engine of penstock, for penstock.engine.";
  penstock::python::register_errors();
  module.def(
      "shares_pipelines", [] { return penstock::python::part_of_environment(0).has_value(); },
      "Whether the environment says that this process is one of several.");
  penstock::python::add_step_type(module);
  penstock::python::add_engine_type(module);
  penstock::python::add_examination(module);
}
