/// \file
/// Which processes train together, on one machine or many, how they meet, and their group, which a `Pipeline` is given:
/// libtorch's own c10d, a TCPStore for the rendezvous, Gloo for tensors on the host and NCCL, where libtorch has it,
/// for those on devices. Each process may drive several ranks as threads; those talk to each other as references.
///
///     penstock::ProcessSettings part{.process = 1, .processes = 2, .ranks = 4, .address = "10.0.0.1"};
///     penstock::ProcessGroup group(part);
///     penstock::Pipeline pipeline(network, schedule, settings, &group);
///
/// Under a launcher `process_of_environment` makes the settings.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/types.h"

namespace penstock {

/// Who takes part, and where they meet.
struct ProcessSettings {
  int process = 0;         ///< this one's number
  int processes = 1;       ///< how many take part
  int processes_here = 0;  ///< how many of them are on this machine; 0: all
  int ranks = 1;           ///< of all processes together, at least one each; process 0 has the first ones
  /// Where process 0 listens and all others ask, by name or number. It listens on this address only.
  std::string address = "127.0.0.1";
  int port = 29500;  ///< 1 to 65535; 0 only with `listening_socket`
  /// Process 0: a bound and listening socket that is used in place of a new one, so that nobody can take the port
  /// between its choice and its use. The group takes it over. -1: none.
  int listening_socket = -1;
  bool store_is_elsewhere = false;  ///< someone else, such as torchrun's agent, already listens there
  /// The address on which this process takes connections of other processes. Empty: loopback where `address` is
  /// loopback, otherwise that of the interface by which `address` is reached.
  std::string own_address;
  /// By this the processes of one run know each other; empty: process 0 draws one. Each attempt at a run needs one of
  /// its own.
  std::string run_identity;
  /// Where this process's ranks keep their tensors, in order: "cpu", "cuda:0". Empty: the host. Between devices that
  /// NCCL joins tensors go directly, between others through the hosts' memory.
  std::vector<std::string> devices;
  bool shared_memory = true;           ///< messages of two processes of one machine go through memory that they share
  Milliseconds join_timeout{120'000};  ///< within which all processes must have come
  /// Asked, in the caller's thread, while this one waits for the others to come: the number of a signal ends the wait
  /// of all that have come so far, 0 does not.
  std::function<int()> asked_to_stop;
  Milliseconds peer_timeout{30'000};  ///< after so much silence a process counts as lost. Dead ones show at once
};

/// \throws Error (BadInput) for a number out of its range, more processes than ranks, devices of fewer
/// or more than its ranks, or an address that has no name.
void check_process_settings(const ProcessSettings& settings);

/// This process's part, or nothing if it was started alone. Takes over what the launcher left open for it; call it
/// once.
/// \throws Error (BadInput) that names a variable of the environment (`worker_environment`).
[[nodiscard]] std::optional<ProcessSettings> process_of_environment();

/// Tells the launcher, if one asks, that all processes have met.
void tell_joined();

/// The first of a process's ranks and the one after its last. Numbers of ranks differ by at most one.
[[nodiscard]] std::pair<RankId, RankId> ranks_of_process(int process, int processes, int ranks);

/// The most ranks that live on this process's machine.
[[nodiscard]] int ranks_of_machine(const ProcessSettings& settings);

/// What went over one link, to and from another process.
struct LinkReport {
  int process = 0;  ///< the other one
  Bytes sent;
  Bytes received;
  std::int64_t messages_sent = 0;
  std::int64_t messages_received = 0;

  friend bool operator==(const LinkReport&, const LinkReport&) = default;
};

/// Thrown by a process if it or another was asked to stop before all processes had met.
class StoppedWhileJoining : public Error {
 public:
  explicit StoppedWhileJoining(int stop_signal)
      : Error(ErrorKind::RunFailed,
              "a request to stop while the processes came together; expected all of the run; start it again"),
        stop_signal_(stop_signal) {}
  /// The signal of the process that was asked first.
  [[nodiscard]] int stop_signal() const { return stop_signal_; }

 private:
  int stop_signal_;
};

class LinkedProcesses;
class Transport;

/// This process's part in a group of processes. Calls come from one thread at a time. Its destructor tells the others,
/// and waits until they are done too, or lost. Must outlive its ends of the transport.
class ProcessGroup {
 public:
  /// How many descriptors each of so many processes needs at most for its links, besides those that it has open.
  [[nodiscard]] static int descriptors_for(int processes);

  /// Meets the others. \throws Error (BadInput) where the port is taken, an address cannot be resolved, or another
  /// process has this one's number; (RunFailed) that names those who have not come in time, or
  /// which limit of the system leaves no room for the links; StoppedWhileJoining.
  explicit ProcessGroup(const ProcessSettings& settings);
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;
  ProcessGroup(ProcessGroup&&) = delete;
  ProcessGroup& operator=(ProcessGroup&&) = delete;
  ~ProcessGroup();

  [[nodiscard]] int process() const;
  [[nodiscard]] int processes() const;
  [[nodiscard]] int ranks() const;

  /// The ends of this process's ranks, in order. Call it once.
  [[nodiscard]] std::vector<std::unique_ptr<Transport>> take_ends();

  /// Ends every wait of every process: their receives and exchanges throw `Aborted`. The first reason stays.
  void abort(const std::string& reason);

  /// Every process gives a text under the same name and gets those of all, by process. Use each name once.
  /// \throws Error (RunFailed) where some do not come in time; Aborted.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& name, const std::string& text);

  [[nodiscard]] std::vector<LinkReport> report() const;

 private:
  std::unique_ptr<LinkedProcesses> processes_;
};

}  // namespace penstock
