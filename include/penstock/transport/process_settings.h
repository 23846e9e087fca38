/// \file
/// Which processes train together, and how they meet. Free of libtorch.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/ids.h"
#include "penstock/base/units.h"

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
  /// Where this process's ranks keep their tensors, in order: "cpu", "cuda:0". Empty: the host. Between devices that
  /// NCCL joins tensors go directly, between others through the hosts' memory.
  std::vector<std::string> devices;
  bool shared_memory = true;           ///< messages of two processes of one machine go through memory that they share
  Milliseconds join_timeout{120'000};  ///< until all processes must have come
  /// Asked, in the caller's thread, while this one waits for the others to come: the number of a signal ends the wait
  /// of all that have come so far, 0 does not.
  std::function<int()> asked_to_stop;
  Milliseconds peer_timeout{30'000};  ///< after so much silence a process counts as lost. Dead ones show at once
};

/// \throws Error (BadInput) for a number out of its range, more processes than ranks, devices of fewer
/// or more than its ranks, or an address that has no name.
void check_process_settings(const ProcessSettings& settings);

/// The first of a process's ranks and the one after its last. Numbers of ranks differ by at most one.
[[nodiscard]] std::pair<RankId, RankId> ranks_of_process(int process, int processes, int ranks);

}  // namespace penstock
