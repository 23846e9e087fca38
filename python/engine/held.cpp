#include "engine/held.h"

#include <exception>
#include <utility>

#include <torch/csrc/Exceptions.h>

#include "penstock/base/types.h"

namespace penstock::python {
namespace {

// What the interpreter knows of a thread that C++ has started. Without it everything that takes the lock would make
// and delete one: also libtorch, for each tensor of a graph that Python has seen and a backward frees.
class KeptThreadState {
 public:
  KeptThreadState() {
    static_cast<void>(PyGILState_Ensure());
    static_cast<void>(PyEval_SaveThread());
  }
  KeptThreadState(const KeptThreadState&) = delete;
  KeptThreadState& operator=(const KeptThreadState&) = delete;
  KeptThreadState(KeptThreadState&&) = delete;
  KeptThreadState& operator=(KeptThreadState&&) = delete;
  // At the end of the thread: who waits for that does not have the lock.
  ~KeptThreadState() {
    if (Py_IsInitialized() == 0) return;
    static_cast<void>(PyGILState_Ensure());
    PyErr_Clear();
    PyGILState_Release(PyGILState_LOCKED);
    PyGILState_Release(PyGILState_UNLOCKED);
  }
};

// Returns when the wait for the lock begins, in ms.
double begin_call() {
  const double now = SteadyClock().now().count;
  if (PyGILState_GetThisThreadState() == nullptr) {
    [[maybe_unused]] static const thread_local KeptThreadState kept;
  }
  return now;
}

// Whose Python code this thread has run last.
thread_local const void* last_crossing = nullptr;

}  // namespace

Held Crossing::hold(py::object object) {
  Held held(new py::object(std::move(object)), [kept = kept_](const py::object* gone) {
    // Behind the interpreter's end there is nothing to give back, and no lock to take.
    if (Py_IsInitialized() == 0) return;
    const py::gil_scoped_acquire lock;
    kept->erase(gone);
    delete gone;  // NOLINT(cppcoreguidelines-owning-memory): this is the owner's deleter
  });
  kept_->insert(held.get());
  return held;
}

int Crossing::visit(visitproc visitor, void* argument) const {
  for (const py::object* object : *kept_)
    if (const int answer = visitor(object->ptr(), argument); answer != 0) return answer;
  return 0;
}

Crossing::Lock::Lock(Crossing& crossing) : begun_ms_(begin_call()) {
  // What libtorch leaves behind where a backward has raised.
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  last_crossing = &crossing;
  if (crossing.closing_)
    throw run_failed("a pipeline that was closed while it was at work", "one that is open",
                     "wait for its call in the other thread before you close it");
  if (crossing.interrupts_ > 1)
    throw run_failed("an interrupt while a step was on its way", "a step that ends",
                     "make a new pipeline and load a checkpoint");
  crossing.waited_ms_.fetch_add(SteadyClock().now().count - begun_ms_);
}

bool Crossing::is_on_its_thread() const { return last_crossing == this; }

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
  keep_object(value);
  const bool bad_input = py::isinstance(value, py::module_::import("penstock.errors").attr("BadInput"));
  const std::string first_line = said.substr(0, said.find('\n'));
  throw Error(bad_input ? ErrorKind::BadInput : ErrorKind::RunFailed,
              where + (bad_input            ? first_line
                       : first_line.empty() ? name
                                            : name + ": " + first_line));
}

void Crossing::keep_object(const py::object& raised) {
  const std::scoped_lock lock(mutex_);
  if (!raised_) raised_ = hold(raised);
}

void Crossing::keep(python_error& raised) {
  if (raised.type == nullptr) return;
  PyErr_NormalizeException(&raised.type, &raised.value, &raised.traceback);
  // The thread that failed keeps the exception for as long as the pipeline lives, and shall not keep Python's frames.
  const auto type = py::reinterpret_steal<py::object>(std::exchange(raised.type, nullptr));
  const auto value = py::reinterpret_steal<py::object>(std::exchange(raised.value, nullptr));
  const auto trace = py::reinterpret_steal<py::object>(std::exchange(raised.traceback, nullptr));
  if (!value) return;
  if (trace) PyException_SetTraceback(value.ptr(), trace.ptr());
  keep_object(value);
}

void Crossing::keep_nested(const Error& error) {
  try {
    std::rethrow_if_nested(error);
  } catch (python_error& raised) {
    keep(raised);
  } catch (...) {
    return;  // no exception of Python's
  }
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
