/// \file
/// Which rank a process is, as the programs that start processes say in the environment: `launch` and torchrun, mpirun,
/// srun.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace penstock {

/// What a worker was told by whoever started it.
struct WorkerEnvironment {
  int rank = 0;
  int world_size = 1;
  /// The worker's number on its machine, and how many there are; empty if the environment does not say.
  std::optional<int> local_rank = {};
  std::optional<int> local_world_size = {};
  /// Where rank 0 listens: a name or an address that can be looked up, not yet looked up.
  std::string master_address = {};
  /// 1 to 65535; 0, for any, only if there is one rank and no port was given.
  int master_port = 0;
  /// Equal on all ranks of one start of a run, different from start to start if the starting program sets it; may be
  /// empty.
  std::string run_identity = {};
  /// How often the run was started before, 0 if the environment does not say.
  int attempt = 0;
  /// Rank 0 under `launch`: an inherited socket that listens on `master_port` already. The worker's to close.
  std::optional<int> listen_descriptor = {};
  /// Under a `launch` that watches for workers that stand still: an inherited descriptor. The worker's to close when it
  /// has met the others; until then no other program may inherit it.
  std::optional<int> joined_descriptor = {};

  friend bool operator==(const WorkerEnvironment&, const WorkerEnvironment&) = default;
};

/// The value of a variable by its name; empty if it is not set.
using VariableLookup = std::function<std::optional<std::string>(const std::string& name)>;

/// The process's own environment. Not safe beside a thread that changes it.
[[nodiscard]] std::optional<std::string> environment_variable(const std::string& name);

/// Which rank this process is, or nothing if it was started alone. Looked for in this order:
///
/// 1. `launch`, torchrun: RANK, WORLD_SIZE; LOCAL_RANK, LOCAL_WORLD_SIZE, TORCHELASTIC_RUN_ID,
/// TORCHELASTIC_RESTART_COUNT
/// 2. Open MPI: OMPI_COMM_WORLD_RANK, …_SIZE, …_LOCAL_RANK, …_LOCAL_SIZE
/// 3. MPICH, Intel MPI and others with PMI: PMI_RANK, PMI_SIZE; MPI_LOCALRANKID, MPI_LOCALNRANKS
/// 4. srun: SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, within a step (SLURM_STEP_ID or SLURM_STEPID; a batch script,
///    which has none, is no rank)
///
/// MASTER_ADDR and MASTER_PORT are needed where there is more than one rank. Under srun MASTER_ADDR may be missing: it
/// is then the first host of SLURM_STEP_NODELIST or SLURM_JOB_NODELIST, else SLURM_LAUNCH_NODE_IPADDR for one node.
/// A variable that is set to nothing counts as not set. Thread-safe where `lookup` is.
/// \throws Error (BadInput) in one line that names the variable.
[[nodiscard]] std::optional<WorkerEnvironment> worker_environment(const VariableLookup& lookup = environment_variable);

}  // namespace penstock
