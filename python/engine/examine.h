// Audits and profiles of layers of Python.
#pragma once

#include "engine/held.h"

namespace penstock::python {

void add_examination(py::module_& module);

}  // namespace penstock::python
