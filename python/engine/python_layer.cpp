#include "engine/python_layer.h"

#include <fmt/format.h>
#include <utility>

#include <torch/csrc/autograd/python_variable.h>

#include "penstock/base/error.h"

namespace penstock::python {
namespace {

constexpr const char* what_layers_return = "a tensor, None, or a tuple or list of these";

Error refused(const std::string& whose, const std::string& what) {
  return bad_input(fmt::format("{} returned {}", whose, what), what_layers_return, "let it return its tensors alone");
}

bool is_tensor_or_none(const py::handle& object) { return object.is_none() || THPVariable_Check(object.ptr()); }

at::Tensor tensor_of(const py::handle& object) {
  return object.is_none() ? at::Tensor() : THPVariable_Unpack(object.ptr());
}

}  // namespace

std::string type_name(const py::handle& object) {
  return py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>();
}

Tensors tensors_of(const py::handle& returned, const std::string& whose) {
  if (is_tensor_or_none(returned)) return {tensor_of(returned)};
  if (!PyTuple_Check(returned.ptr()) && !PyList_Check(returned.ptr())) throw refused(whose, "a " + type_name(returned));
  Tensors tensors;
  for (const py::handle part : py::reinterpret_borrow<py::sequence>(returned)) {
    if (!is_tensor_or_none(part))
      throw refused(whose, fmt::format("a {} that holds a {}", type_name(returned), type_name(part)));
    tensors.push_back(tensor_of(part));
  }
  return tensors;
}

py::tuple tuple_of(const Tensors& tensors) {
  py::tuple tuple(tensors.size());
  for (std::size_t index = 0; index < tensors.size(); ++index) tuple[index] = py::cast(tensors[index]);
  return tuple;
}

py::object called(const py::object& callable, const py::tuple& arguments) {
  PyObject* returned = PyObject_Call(callable.ptr(), arguments.ptr(), nullptr);
  if (returned == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(returned);
}

PythonModule::PythonModule(const py::object& module, Crossing& crossing, Known& known)
    : torch::nn::Module(type_name(module)), module_(crossing.hold(module)) {
  for (const auto& [name, parameter] : module.attr("_parameters").cast<py::dict>()) {
    if (parameter.is_none()) continue;
    const at::Tensor& tensor = THPVariable_Unpack(parameter.ptr());
    register_parameter(name.cast<std::string>(), tensor, tensor.requires_grad());
  }
  for (const auto& [name, buffer] : module.attr("_buffers").cast<py::dict>())
    if (!buffer.is_none()) register_buffer(name.cast<std::string>(), THPVariable_Unpack(buffer.ptr()));
  for (const auto& [name, child] : module.attr("_modules").cast<py::dict>()) {
    if (child.is_none()) continue;
    std::shared_ptr<PythonModule>& mirrored = known[child.ptr()];
    if (!mirrored)
      mirrored = std::make_shared<PythonModule>(py::reinterpret_borrow<py::object>(child), crossing, known);
    register_module(name.cast<std::string>(), mirrored);
  }
}

// Python's own, which may have been overridden, knows what to do with those within.
void PythonModule::train(bool on) {
  const py::gil_scoped_acquire lock;
  python().attr("train")(on);
}

bool PythonModule::is_training() const noexcept {
  const py::gil_scoped_acquire lock;
  return python().attr("training").cast<bool>();
}

PythonLayer::PythonLayer(const py::object& module, std::string name, std::shared_ptr<Crossing> crossing, Known& known)
    : PythonModule(module, *crossing, known), name_(std::move(name)), crossing_(std::move(crossing)) {}

Tensors PythonLayer::forward(const Tensors& inputs) {
  const Crossing::Lock lock(*crossing_);
  try {
    return tensors_of(called(python(), tuple_of(inputs)), name_);
  } catch (py::error_already_set& raised) {
    crossing_->raise(raised, "");
  }
}

void PythonLayer::to(torch::Device device, bool non_blocking) {
  const auto check = [&](const at::Tensor& tensor, const std::string& what) {
    if (tensor.defined() && !tensor.device().is_cpu() && tensor.device() != device)
      throw bad_input(fmt::format("{} has its {} on {}", name_, what, tensor.device().str()),
                      fmt::format("the host, or {}, the device of its rank", device.str()),
                      "leave it on the host, make it in a factory, or choose other `devices`");
  };
  for (const auto& parameter : named_parameters()) check(parameter.value(), parameter.key());
  for (const auto& buffer : named_buffers()) check(buffer.value(), buffer.key());
  torch::nn::Module::to(device, non_blocking);
}

}  // namespace penstock::python
