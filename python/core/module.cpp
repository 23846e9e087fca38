// The part of the Python package that needs no torch: schedules, costs, timelines and plans.
#include <pybind11/pybind11.h>

#include "core/values.h"
#include "errors.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "Schedules, costs, timelines and plans of pipelines, without torch.";
  module.attr("__version__") = PENSTOCK_VERSION;
  penstock::python::register_errors();
  // In the order in which signatures name them.
  penstock::python::add_costs(module);
  penstock::python::add_timelines(module);
  penstock::python::add_schedules(module);
  penstock::python::add_synthesis(module);
  penstock::python::add_plans(module);
}
