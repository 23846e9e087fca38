#include "engine/examine.h"

#include <pybind11/stl.h>

#include "penstock/cost/cost.h"
#include "penstock/diagnosis/audit.h"
#include "penstock/profile/profile.h"

#include "engine/given.h"
#include "engine/listening.h"

namespace penstock::python {
namespace {

py::list audited_layers(const AuditReport& report) {
  py::list layers;
  for (const LayerAudit& layer : report.layers) {
    const py::dict one;
    one["layer"] = layer.layer;
    one["name"] = layer.name;
    one["is_random"] = layer.is_random;
    one["works_in_place"] = layer.works_in_place;
    one["changes_dtype"] = layer.changes_dtype;
    one["buffers"] = layer.buffers;
    one["shared"] = layer.shared;
    one["leak_bytes"] = layer.leak.count;
    one["refused"] = layer.refused;
    one["differences"] = layer.differences.size();
    layers.append(one);
  }
  return layers;
}

// Whether it holds, its text, and what was found about each layer.
py::tuple audit_of(const std::vector<LayerTuple>& layers, const py::object& loss, const std::vector<TieTuple>& ties,
                   const std::vector<SkipTuple>& skips, const Arguments& inputs, const Arguments& targets,
                   int microbatches, std::uint64_t seed) {
  const Described made = described(layers, loss, ties, skips, /*keeps_modules=*/false);
  const Minibatch minibatch = minibatch_of(inputs, targets);
  AuditSettings settings;
  settings.seed = seed;
  const AuditReport report =
      run_listening(*made.crossing, [&] { return audit(made.network, minibatch, microbatches, settings); });
  // What a layer raised is a part of the report.
  made.crossing->forget();
  return py::make_tuple(report.holds(), to_string(report), audited_layers(report));
}

// As JSON. `microbatch` gives the inputs and the targets of so many samples, as tuples.
std::string profile_of(const std::vector<LayerTuple>& layers, const py::object& loss, const std::vector<TieTuple>& ties,
                       const std::vector<SkipTuple>& skips, const std::vector<std::int64_t>& sizes,
                       const py::object& microbatch, const py::dict& given) {
  const Described made = described(layers, loss, ties, skips, /*keeps_modules=*/false);
  ProfileSettings settings;
  settings.sizes = sizes;
  settings.ranks = given["ranks"].cast<int>();
  settings.threads_per_rank = given["threads_per_rank"].cast<int>();
  settings.devices = devices_of(given);
  settings.seed = given["seed"].cast<std::uint64_t>();
  settings.precision = Worded<Precision>(given["precision"].cast<std::string>());
  settings.budget = {given["budget_ms"].cast<double>()};
  if (given["updates"].cast<bool>()) settings.optimizer = optimizer_settings_of(given);
  std::map<std::int64_t, Microbatch> made_here;
  for (const std::int64_t size : sizes) {
    const auto [inputs, targets] = microbatch(size).cast<std::pair<Arguments, Arguments>>();
    Microbatch& one = made_here[size];
    for (const Argument& input : minibatch_of(inputs, targets).inputs) one.inputs.push_back(input.tensor);
    for (const Argument& target : minibatch_of(inputs, targets).targets) one.targets.push_back(target.tensor);
  }
  settings.microbatch = [&](std::int64_t samples) { return made_here.at(samples); };
  const LayerCosts costs = run_listening(*made.crossing, [&] {
    LayerCosts measured = profile_layers(made.network, settings);
    measured.machine = describe_machine(settings);
    return measured;
  });
  return to_json(costs);
}

}  // namespace

void add_examination(py::module_& module) {
  module.def("audit", &audit_of);
  module.def("profile", &profile_of);
}

}  // namespace penstock::python
