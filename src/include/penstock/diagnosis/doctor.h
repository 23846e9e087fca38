/// \file
/// What a machine has for a run, and how fast the links between its ranks are. Free of libtorch.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/diagnosis/measured_link.h"
#include "penstock/transport/backends.h"
#include "penstock/transport/c10d.h"

namespace penstock {

/// Versions, and what there is to compute with.
struct MachineFacts {
  std::string penstock;
  std::string libtorch;
  std::string compiler;
  std::vector<BackendPresence> backends;
  std::vector<std::string> devices;
  int cores = 0;         ///< of the machine
  int usable_cores = 0;  ///< that this process may run on
  int threads = 0;       ///< that an operation of libtorch uses where nobody chooses
  Bytes memory;          ///< of the machine
  Bytes available_memory;

  friend bool operator==(const MachineFacts&, const MachineFacts&) = default;
};

/// An address and a port at which ranks could meet; both are free.
struct Rendezvous {
  std::string address;
  int port = 0;

  friend bool operator==(const Rendezvous&, const Rendezvous&) = default;
};

/// Everything that `penstock doctor` says.
struct Diagnosis {
  MachineFacts machine;
  std::optional<Rendezvous> place;
  int ranks = 1;  ///< between which links were measured
  std::vector<MeasuredLink> links;
  std::string why_no_links;
};

/// Of the machine that this runs on. \param version penstock's own.
[[nodiscard]] MachineFacts machine_facts(const std::string& version);

/// Whether process 0 of a run could listen there. \throws Error (BadInput) in one line where the port is out of range
/// or taken, or the address is not this machine's.
void check_rendezvous(const Rendezvous& place);

/// The links between the ranks, one in each process. All processes call it; the first gets the links.
/// \throws Error as `ProcessGroup`, and (RunFailed) where a process is lost.
[[nodiscard]] std::vector<MeasuredLink> measure_links_of(const ProcessSettings& processes);

/// Tables for reading.
[[nodiscard]] std::string to_text(const Diagnosis& diagnosis);

/// An object, in which `links` has the form of a cost's (`penstock/cost/cost.h`), both directions, and `samples` what
/// was measured.
[[nodiscard]] std::string to_json(const Diagnosis& diagnosis);

}  // namespace penstock
