// A torch.nn.Module of Python as a layer of the engine.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <torch/nn/module.h>

#include "penstock/nn/layer.h"

#include "engine/held.h"

namespace penstock::python {

// A module's parameters, buffers and submodules under the same names, so that optimizers and checkpoints find them; the
// tensors are shared. Whether it trains is what Python says: one that is frozen there, at any time, is frozen here.
class PythonModule : public torch::nn::Module {
 public:
  using Known = std::map<const PyObject*, std::shared_ptr<PythonModule>>;

  // With the interpreter's lock. `known` holds those of one layer, of which some may be there under several names.
  PythonModule(const py::object& module, Crossing& crossing, Known& known);

  void train(bool on) override;
  [[nodiscard]] bool is_training() const noexcept override;

 protected:
  [[nodiscard]] const py::object& python() const { return *module_; }

 private:
  Held module_;
};

// The whole layer.
class PythonLayer final : public PythonModule {
 public:
  // `name` is for messages: "layer 3 (Block)".
  PythonLayer(const py::object& module, std::string name, std::shared_ptr<Crossing> crossing, Known& known);

  // Calls the module with a tensor, or None, for each input.
  [[nodiscard]] Tensors forward(const Tensors& inputs);

  using torch::nn::Module::to;
  // Throws Error (BadInput) for a module that is on another device than the host and this one.
  void to(torch::Device device, bool non_blocking) override;

 private:
  std::string name_;
  std::shared_ptr<Crossing> crossing_;
};

// What a layer or a loss returned: a tensor, None, or a tuple or list of these. With the interpreter's lock. Throws
// Error (BadInput) that says what else it was. `whose` is for the message.
[[nodiscard]] Tensors tensors_of(const py::handle& returned, const std::string& whose);

// A tensor, or None, for each.
[[nodiscard]] py::tuple tuple_of(const Tensors& tensors);

// Calls it with these, which pybind11 would take apart and put together again. With the interpreter's lock.
[[nodiscard]] py::object called(const py::object& callable, const py::tuple& arguments);

// "str", "NoneType".
[[nodiscard]] std::string type_name(const py::handle& object);

}  // namespace penstock::python
