/// \file
/// A transport between processes, on one machine or many: libtorch's own c10d, Gloo for tensors and a TCPStore for the
/// rendezvous. Each process may drive several ranks as threads; those talk to each other as references.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/units.h"
#include "penstock/transport/transport.h"

namespace penstock {

/// Who takes part, and where they meet.
struct ProcessSettings {
  int process = 0;    ///< this one's number
  int processes = 1;  ///< how many take part
  int ranks = 1;      ///< of all processes together, at least one each; process 0 has the first ones
  /// Where process 0 listens and all others ask, by name or number. It listens on this address only.
  std::string address = "127.0.0.1";
  int port = 29500;  ///< 1 to 65535; 0 only with `listening_socket`
  /// Process 0: a bound and listening socket that is used in place of a new one, so that nobody can take the port
  /// between its choice and its use. Taken over. -1: none.
  int listening_socket = -1;
  bool store_is_elsewhere = false;  ///< someone else, such as torchrun's agent, already listens there
  /// The address on which this process takes connections of other processes. Empty: loopback where `address` is
  /// loopback, otherwise that of the interface by which `address` is reached.
  std::string own_address;
  /// By which processes of one run know each other; empty: process 0 draws one. Two attempts at a run need two.
  std::string run_identity;
  Milliseconds join_timeout{120'000};  ///< until all processes must have come
  Milliseconds peer_timeout{30'000};   ///< after so much silence a process counts as lost. Dead ones show at once
};

/// \throws Error (BadInput) for a number out of its range, more processes than ranks, or an address that has no name.
void check_process_settings(const ProcessSettings& settings);

/// The first of a process's ranks and the one after its last. Numbers of ranks differ by at most one.
[[nodiscard]] std::pair<RankId, RankId> ranks_of_process(int process, int processes, int ranks);

/// What went over one link, to and from another process.
struct LinkReport {
  int process = 0;  ///< the other one
  Bytes sent;
  Bytes received;
  std::int64_t messages_sent = 0;
  std::int64_t messages_received = 0;

  friend bool operator==(const LinkReport&, const LinkReport&) = default;
};

/// This process's part in a group of processes. Calls come from one thread at a time. Its end is announced to the
/// others: it waits until they are done too, or lost. Must outlive its ends of the transport.
class ProcessGroup {
 public:
  /// Meets the others. \throws Error (BadInput) where the port is taken, an address cannot be resolved, or another
  /// process has this one's number; (RunFailed) that names those who have not come in time.
  explicit ProcessGroup(const ProcessSettings& settings);
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

  /// Every process gives a text under the same name and gets those of all, by process. Each name once.
  /// \throws Error (RunFailed) where some do not come in time.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& name, const std::string& text);

  [[nodiscard]] std::vector<LinkReport> report() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
