/// \file
/// A transport between processes, on one machine or many: libtorch's own c10d, a TCPStore for the rendezvous, Gloo for
/// tensors on the host and NCCL, where libtorch has it, for those on devices. Each process may drive several ranks as
/// threads; those talk to each other as references.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/units.h"
#include "penstock/transport/process_settings.h"
#include "penstock/transport/transport.h"

namespace penstock {

/// What went over one link, to and from another process.
struct LinkReport {
  int process = 0;  ///< the other one
  Bytes sent;
  Bytes received;
  std::int64_t messages_sent = 0;
  std::int64_t messages_received = 0;

  friend bool operator==(const LinkReport&, const LinkReport&) = default;
};

/// What a process throws that met nobody, since it or another was asked to stop before all had come.
class StoppedWhileJoining : public Error {
 public:
  explicit StoppedWhileJoining(int stop_signal)
      : Error(ErrorKind::RunFailed,
              "a request to stop while the processes came together; expected all of the run; start it again"),
        stop_signal_(stop_signal) {}
  /// Of whoever was asked first.
  [[nodiscard]] int stop_signal() const { return stop_signal_; }

 private:
  int stop_signal_;
};

struct DirectBackend;

/// This process's part in a group of processes. Calls come from one thread at a time. Its end is announced to the
/// others: it waits until they are done too, or lost. Must outlive its ends of the transport.
class ProcessGroup {
 public:
  /// How many descriptors a process of so many needs at most for its links, besides those that it has.
  [[nodiscard]] static int descriptors_for(int processes);
  /// The same of threads.
  [[nodiscard]] static int threads_for(int processes);

  /// Meets the others. \throws Error (BadInput) where the port is taken, an address cannot be resolved, or another
  /// process has this one's number; (RunFailed) that names those who have not come in time, or
  /// which limit of the system leaves no room for the links; StoppedWhileJoining.
  explicit ProcessGroup(const ProcessSettings& settings);
  /// \param direct what brings tensors from device to device in place of NCCL: the tests have one of their own.
  ProcessGroup(const ProcessSettings& settings, const DirectBackend& direct);
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;
  ProcessGroup(ProcessGroup&&) = delete;
  ProcessGroup& operator=(ProcessGroup&&) = delete;
  ~ProcessGroup();

  [[nodiscard]] int process() const;
  [[nodiscard]] int processes() const;
  [[nodiscard]] int ranks() const;

  /// The ends of this process's ranks, in order. Once.
  [[nodiscard]] std::vector<std::unique_ptr<Transport>> take_ends();

  /// Ends every wait of every process: their receives and exchanges throw `Aborted`. The first reason stays.
  void abort(const std::string& reason);

  /// Every process gives a text under the same name and gets those of all, by process. Each name once.
  /// \throws Error (RunFailed) where some do not come in time; Aborted.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& name, const std::string& text);

  [[nodiscard]] std::vector<LinkReport> report() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
