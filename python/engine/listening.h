// Work of C++ that a Python program waits for.
#pragma once

#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <c10/util/Exception.h>
#include <torch/csrc/Exceptions.h>

#include "engine/held.h"

namespace penstock::python {

// Runs `work` on a thread of its own, so that this one, which has the interpreter's lock and lets go of it, hears of
// Ctrl-C. That is raised when `work` has ended; a second one asks it to end at its next call of Python code. What
// Python code raised on other threads becomes the cause of the error that `work` throws.
template <class Work>
auto run_listening(Crossing& crossing, Work work) {
  constexpr std::chrono::milliseconds between_looks{50};
  std::optional<py::error_already_set> interrupt;
  const auto raise_interrupt = [&] {
    if (!interrupt) return;
    crossing.answer_interrupt();
    throw *interrupt;
  };
  const auto hear = [&] {
    if (PyErr_CheckSignals() == 0) return;
    py::error_already_set raised;
    crossing.interrupt();
    if (!interrupt) interrupt = std::move(raised);
  };
  try {
    auto done = std::async(std::launch::async, std::move(work));
    {
      const py::gil_scoped_release work_goes_on;
      while (done.wait_for(between_looks) != std::future_status::ready) {
        const py::gil_scoped_acquire look;
        hear();
      }
      // The thread's end may need the lock.
      done.wait();
    }
    // One since the last look would be raised where the caller's clean-up begins, which would then not happen.
    hear();
    if constexpr (std::is_void_v<decltype(done.get())>) {
      done.get();
      raise_interrupt();
    } else {
      auto result = done.get();
      raise_interrupt();
      return result;
    }
  } catch (const Error& error) {
    raise_interrupt();
    crossing.keep_nested(error);
    crossing.raise_from(error);
    throw;
  } catch (python_error& raised) {
    raise_interrupt();
    const Error error(ErrorKind::RunFailed, raised.what());
    crossing.keep(raised);
    crossing.raise_from(error);
    throw error;
  } catch (const c10::Error& error) {
    raise_interrupt();
    const std::string words = error.what_without_backtrace();
    throw Error(ErrorKind::RunFailed, words.substr(0, words.find('\n')));
  } catch (const std::exception&) {
    raise_interrupt();
    throw;
  }
}

}  // namespace penstock::python
