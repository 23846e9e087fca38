#include "engine/held.h"

#include <utility>

#include "penstock/base/types.h"

namespace penstock::python {

Held hold(py::object object) {
  return {new py::object(std::move(object)), [](const py::object* held) {
            // Behind the interpreter's end there is nothing to give back, and no lock to take.
            if (Py_IsInitialized() == 0) return;
            const py::gil_scoped_acquire lock;
            delete held;  // NOLINT(cppcoreguidelines-owning-memory): this is the owner's deleter
          }};
}

Crossing::Lock::Lock(Crossing& crossing) : begun_ms_(SteadyClock().now().count) {
  if (crossing.interrupts_ > 1)
    throw run_failed("an interrupt while a step was on its way", "a step that ends",
                     "make a new pipeline and load a checkpoint");
  crossing.waited_ms_.fetch_add(SteadyClock().now().count - begun_ms_);
}

void Crossing::interrupt() {
  if (++interrupts_ > 1 && end_) end_();
}

void Crossing::answer_interrupt() {
  int once = 1;
  interrupts_.compare_exchange_strong(once, 0);
}

void Crossing::raise(py::error_already_set& raised, const std::string& where) {
  const py::object& value = raised.value();
  if (raised.trace()) PyException_SetTraceback(value.ptr(), raised.trace().ptr());
  const auto name = py::str(py::type::of(value).attr("__name__")).cast<std::string>();
  std::string said;
  try {
    said = py::str(value).cast<std::string>();
  } catch (const py::error_already_set&) {
    said = "(it has no text)";
  }
  {
    const std::scoped_lock lock(mutex_);
    if (!raised_) raised_ = hold(value);
  }
  const bool bad_input = py::isinstance(value, py::module_::import("penstock.errors").attr("BadInput"));
  const std::string first_line = said.substr(0, said.find('\n'));
  throw Error(bad_input ? ErrorKind::BadInput : ErrorKind::RunFailed,
              where + (bad_input            ? first_line
                       : first_line.empty() ? name
                                            : name + ": " + first_line));
}

void Crossing::raise_from(const Error& error) {
  const py::object cause = take_raised();
  if (cause.is_none()) return;
  const char* name = error.kind() == ErrorKind::BadInput ? "BadInput" : "RunFailed";
  const py::object raised = py::module_::import("penstock.errors").attr(name)(error.what());
  PyException_SetCause(raised.ptr(), py::object(cause).release().ptr());
  PyErr_SetObject(py::type::of(raised).ptr(), raised.ptr());
  throw py::error_already_set();
}

py::object Crossing::take_raised() {
  Held taken;
  {
    const std::scoped_lock lock(mutex_);
    taken.swap(raised_);
  }
  return taken ? *taken : py::none();
}

}  // namespace penstock::python
