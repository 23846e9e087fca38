#include "errors.h"

#include <exception>
#include <pybind11/pybind11.h>

#include "penstock/base/error.h"

namespace penstock::python {

void register_errors() {
  // NOLINTNEXTLINE(performance-unnecessary-value-param): as pybind11 calls it.
  pybind11::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& error) {
      const char* name = error.kind() == ErrorKind::BadInput ? "BadInput" : "RunFailed";
      const pybind11::object type = pybind11::module_::import("penstock.errors").attr(name);
      PyErr_SetString(type.ptr(), error.what());
    }
  });
}

}  // namespace penstock::python
