// What penstock's Python files hand over, as values of the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "penstock/exec/microbatch.h"
#include "penstock/pipeline/pipeline.h"

#include "engine/engine.h"
#include "engine/held.h"

namespace penstock::python {

// Each tensor, or None, and the dimension that is cut.
using Arguments = std::vector<std::pair<std::optional<at::Tensor>, std::optional<std::int64_t>>>;
// Name, module or factory, whether it is a factory.
using LayerTuple = std::tuple<std::string, py::object, bool>;
// Owner's layer and parameter, the copy's layer and parameter.
using TieTuple = std::tuple<std::int64_t, std::string, std::int64_t, std::string>;
// From, to, output.
using SkipTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

[[nodiscard]] Minibatch minibatch_of(const Arguments& inputs, const Arguments& targets);

// Of the settings' names those that there are.
[[nodiscard]] OptimizerSettings optimizer_settings_of(const py::dict& given);
[[nodiscard]] PipelineSettings settings_of(const py::dict& given, const std::shared_ptr<Crossing>& crossing);
[[nodiscard]] std::vector<at::Device> devices_of(const py::dict& given);
// Nothing where the settings have no `pipeline_number`, or this process was started alone.
[[nodiscard]] std::optional<SharedPipeline> shared_pipeline_of(const py::dict& given);

// A network, and what its layers share with Python.
struct Described {
  std::shared_ptr<Crossing> crossing = std::make_shared<Crossing>();
  std::shared_ptr<BuiltModules> built;  // null where nobody keeps the modules
  Network network;
};

[[nodiscard]] Described described(const std::vector<LayerTuple>& layers, const py::object& loss,
                                  const std::vector<TieTuple>& ties, const std::vector<SkipTuple>& skips,
                                  bool keeps_modules);

}  // namespace penstock::python
