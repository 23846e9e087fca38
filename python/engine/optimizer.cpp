#include "engine/optimizer.h"

#include <utility>

#include "engine/python_layer.h"

namespace penstock::python {
namespace {

// Runs Python code for the optimizer; what it raises becomes the step's error.
template <class Work>
auto with_python(Crossing& crossing, const Work& work) {
  const Crossing::Lock lock(crossing);
  try {
    return work();
  } catch (py::error_already_set& raised) {
    crossing.raise(raised, "the optimizer: ");
  }
}

std::vector<OutsideOptimizer::Named> named_state(const py::object& listed) {
  std::vector<OutsideOptimizer::Named> state;
  for (const py::handle entry : listed.cast<py::list>()) {
    const auto pair = entry.cast<py::tuple>();
    state.emplace_back(pair[0].cast<std::string>(), pair[1].cast<at::Tensor>());
  }
  return state;
}

py::list listed_state(const std::vector<OutsideOptimizer::Named>& state) {
  py::list list;
  for (const auto& [name, tensor] : state) list.append(py::make_tuple(name, tensor));
  return list;
}

OutsideOptimizer made_by(const Held& made, const std::shared_ptr<Crossing>& crossing) {
  OutsideOptimizer optimizer;
  optimizer.update = [made, crossing](double /*learning_rate*/) {
    with_python(*crossing, [&] { made->attr("update")(); });
  };
  optimizer.state = [made, crossing] {
    return with_python(*crossing, [&] { return named_state(made->attr("state")()); });
  };
  optimizer.resume = [made, crossing](const auto& state, std::int64_t updates) {
    with_python(*crossing, [&] { made->attr("resume")(listed_state(state), updates); });
  };
  return optimizer;
}

}  // namespace

MakeOptimizer optimizer_from(Held make, std::shared_ptr<Crossing> crossing) {
  return [make = std::move(make), crossing = std::move(crossing)](const std::vector<UpdatedParameter>& parameters) {
    return with_python(*crossing, [&] {
      py::list names;
      py::list tensors;
      for (const UpdatedParameter& parameter : parameters) {
        names.append(parameter.name);
        tensors.append(parameter.tensor);
      }
      return made_by(crossing->hold((*make)(names, tensors)), crossing);
    });
  };
}

}  // namespace penstock::python
