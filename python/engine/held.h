// Python objects in the hands of C++ threads, and what Python code raised there.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>

#include <torch/csrc/utils/pybind.h>

#include "penstock/base/error.h"

struct python_error;  // as libtorch throws what Python code raised in a backward

namespace penstock::python {

namespace py = pybind11;

// Copies may be made and freed on any thread, without the interpreter's lock.
using Held = std::shared_ptr<const py::object>;

// What the threads of one pipeline and Python share.
class Crossing {
 public:
  Crossing() = default;
  Crossing(const Crossing&) = delete;
  Crossing& operator=(const Crossing&) = delete;
  Crossing(Crossing&&) = delete;
  Crossing& operator=(Crossing&&) = delete;
  ~Crossing() = default;

  // Keeps an object. With the lock.
  [[nodiscard]] Held hold(py::object object);
  // Shows the collector of cycles all that is kept, each object as often as it is. With the lock.
  int visit(visitproc visitor, void* argument) const;

  // Takes the lock for one call of Python code, and counts how long that waited. Throws Error (RunFailed) where the
  // user asked to stop, or the pipeline is being closed.
  class Lock {
   public:
    explicit Lock(Crossing& crossing);
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    Lock(Lock&&) = delete;
    Lock& operator=(Lock&&) = delete;
    ~Lock() = default;

   private:
    double begun_ms_;  // before the lock is there
    py::gil_scoped_acquire acquired_;
  };

  // Keeps what Python code raised, if it is the first, and throws an Error with its last line. With the lock.
  [[noreturn]] void raise(py::error_already_set& raised, const std::string& where);
  // Keeps what Python code raised in a backward, if it is the first. Takes it from `raised`. With the lock.
  void keep(python_error& raised);
  // The same for what the engine has nested in `error`.
  void keep_nested(const Error& error);
  // Where Python code raised since the last call, raises its error as caused by the first exception. With the lock.
  void raise_from(const Error& error);
  // Forgets what Python code raised. With the lock.
  void forget() { static_cast<void>(take_raised()); }

  // The user asks to stop. The first time what is on its way ends, the second time it is ended.
  void interrupt();
  [[nodiscard]] bool asked_to_stop() const { return interrupts_ > 0; }
  // The pipeline is being closed: what is on its way ends at its next call of Python code.
  void close() { closing_ = true; }
  // Whether this thread runs Python code for this pipeline.
  [[nodiscard]] bool is_on_its_thread() const;
  // What was on its way has ended after a first time.
  void answer_interrupt();
  // What else a second one ends; nothing: nothing. From the thread that calls the pipeline.
  void on_second_interrupt(std::function<void()> end) { end_ = std::move(end); }
  // Since the last call, the time that calls of Python code waited for the lock.
  [[nodiscard]] double take_waited_ms() { return waited_ms_.exchange(0); }

 private:
  [[nodiscard]] py::object take_raised();
  void keep_object(const py::object& raised);

  std::atomic<int> interrupts_ = 0;
  std::atomic<bool> closing_ = false;
  std::function<void()> end_;
  std::atomic<double> waited_ms_ = 0;
  std::mutex mutex_;
  // Shared with what is kept, which may live longer; changed and read with the lock alone.
  std::shared_ptr<std::unordered_set<const py::object*>> kept_ =
      std::make_shared<std::unordered_set<const py::object*>>();
  Held raised_;
};

}  // namespace penstock::python
