#include <filesystem>
#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "penstock/cost/cost.h"

#include "core/values.h"

namespace penstock::python {

namespace py = pybind11;

namespace {

py::object parsed(const std::string& json) { return py::module_::import("json").attr("loads")(json); }

StageCost stage_of(double forward, double input_backward, double weight_backward) {
  StageCost stage;
  stage.forward = {forward};
  stage.input_backward = {input_backward};
  stage.weight_backward = {weight_backward};
  return stage;
}

std::string cost_repr(const Cost& cost) {
  return fmt::format("Cost({} stages, {} named links{})", cost.stages.size(), cost.links.size(),
                     cost.memory_caps.empty() ? "" : ", memory caps");
}

std::string layers_repr(const LayerCosts& costs) {
  return fmt::format("LayerCosts({} layers, samples {} to {})", costs.layers.size(), measured_range(costs).least,
                     measured_range(costs).most);
}

}  // namespace

std::string json_of(const py::object& value) {
  if (py::isinstance<py::str>(value)) return value.cast<std::string>();
  return py::module_::import("json").attr("dumps")(value).cast<std::string>();
}

namespace {

void add_cost(py::module_& module) {
  py::class_<Cost>(
      module, "Cost",
      "What the stages and links of a pipeline cost: a value, from a dict or JSON text of the form "
      "{'stages': [{'forward_ms': 1.0, 'input_backward_ms': 1.0, 'weight_backward_ms': 1.0, 'activation_bytes': 0, "
      "...}], "
      "'link': {'latency_ms': 0.0, 'bandwidth_bytes_per_ms': 1e6}, 'links': [...], 'memory_cap_bytes': [...]}. "
      "Only 'stages' and their three times are needed.")
      .def(py::init([](const py::object& value) { return parse_cost(json_of(value)); }), py::arg("value"))
      .def_static("load", &load_cost, py::arg("path"), "Reads a JSON file.")
      .def_static(
          "uniform",
          [](int stages, double forward, double input_backward, double weight_backward, double latency) {
            return uniform_cost(stages, stage_of(forward, input_backward, weight_backward), {{latency}});
          },
          py::arg("stages"), py::kw_only(), py::arg("forward") = 1.0, py::arg("input_backward") = 1.0,
          py::arg("weight_backward") = 1.0, py::arg("latency") = 0.0, "All stages and links alike, in ms.")
      .def_property_readonly(
          "stages", [](const Cost& self) { return self.stages.size(); }, "How many there are.")
      .def(
          "to_json", [](const Cost& self) { return to_json(self); }, "JSON text that gives it back; ms and bytes.")
      .def(
          "to_dict", [](const Cost& self) { return parsed(to_json(self)); }, "A dict that gives it back; ms and bytes.")
      .def(
          "save", [](const Cost& self, const std::filesystem::path& path) { save_cost(self, path); }, py::arg("path"),
          "Writes the JSON, whole or not at all.")
      .def("__repr__", &cost_repr)
      .def(
          "__eq__", [](const Cost& a, const Cost& b) { return a == b; }, py::is_operator())
      .def(py::pickle([](const Cost& self) { return py::make_tuple(to_json(self)); },
                      [](const py::tuple& state) { return parse_cost(state[0].cast<std::string>()); }))
      .attr("__hash__") = py::none();
  py::implicitly_convertible<py::dict, Cost>();
}

void add_layer_costs(py::module_& module) {
  py::class_<LayerCosts>(
      module, "LayerCosts",
      "What the layers of a network cost at several microbatch sizes, with the links and ranks of a machine: a "
      "value, from a dict or JSON text as `penstock plan --cost` reads it (docs/json.md).")
      .def(py::init([](const py::object& value) { return parse_layer_costs(json_of(value)); }), py::arg("value"))
      .def_static("load", &load_layer_costs, py::arg("path"), "Reads a JSON file.")
      .def_property_readonly(
          "layers",
          [](const LayerCosts& self) {
            std::vector<std::string> names;
            names.reserve(self.layers.size());
            for (const LayerCost& layer : self.layers) names.push_back(layer.name);
            return names;
          },
          "Their names.")
      .def_property_readonly(
          "sizes",
          [](const LayerCosts& self) {
            const SampleRange range = measured_range(self);
            return py::make_tuple(range.least, range.most);
          },
          "Between which microbatch sizes, in samples, all layers were measured.")
      .def(
          "cost_of_cut",
          [](const LayerCosts& self, const Cut& cut, double samples) { return cost_of_cut(self, cut, samples); },
          py::arg("cut"), py::kw_only(), py::arg("samples"),
          "The Cost of a cut, the first layer of each stage, at a microbatch size in samples.")
      .def(
          "to_json", [](const LayerCosts& self) { return to_json(self); },
          "JSON text that gives it back; ms and bytes.")
      .def(
          "to_dict", [](const LayerCosts& self) { return parsed(to_json(self)); },
          "A dict that gives it back; ms and bytes.")
      .def(
          "save", [](const LayerCosts& self, const std::filesystem::path& path) { save_layer_costs(self, path); },
          py::arg("path"), "Writes the JSON, whole or not at all.")
      .def("__repr__", &layers_repr)
      .def(
          "__eq__", [](const LayerCosts& a, const LayerCosts& b) { return a == b; }, py::is_operator())
      .def(py::pickle([](const LayerCosts& self) { return py::make_tuple(to_json(self)); },
                      [](const py::tuple& state) { return parse_layer_costs(state[0].cast<std::string>()); }))
      .attr("__hash__") = py::none();
  py::implicitly_convertible<py::dict, LayerCosts>();
}

}  // namespace

void add_costs(py::module_& module) {
  add_cost(module);
  add_layer_costs(module);
}

}  // namespace penstock::python
