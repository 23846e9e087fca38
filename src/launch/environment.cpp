#include "penstock/launch/environment.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr int most_ranks = 1'000'000;

// Whoever starts processes, by the names of its variables; an empty name is one that it does not have.
struct Starter {
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_world_size;
  const char* run_identity;
  const char* attempt;
};

constexpr std::array<Starter, 4> starters = {{
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
     "PMIX_NAMESPACE", ""},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_JOBID", ""},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "", "SLURM_JOB_ID", ""},
}};
constexpr const Starter& srun = starters[3];

class Variables {
 public:
  explicit Variables(const VariableLookup& lookup) : lookup_(lookup) {}

  [[nodiscard]] std::optional<std::string> text(const std::string& name) const {
    if (name.empty()) return std::nullopt;
    std::optional<std::string> value = lookup_(name);
    if (value && value->empty()) return std::nullopt;
    return value;
  }

  [[nodiscard]] bool has(const std::string& name) const { return text(name).has_value(); }

  // A whole number, or nothing if the variable is not set.
  [[nodiscard]] std::optional<int> number(const std::string& name, int least, int most) const {
    const std::optional<std::string> value = text(name);
    if (!value) return std::nullopt;
    int result = 0;
    const char* end = value->data() + value->size();
    const auto [stop, failure] = std::from_chars(value->data(), end, result);
    if (failure != std::errc() || stop != end || result < least || result > most)
      throw bad_input(fmt::format("{} is '{}'", name, shortened(*value)),
                      fmt::format("a whole number from {} to {}", least, most),
                      "correct the variable, or start the ranks with penstock train and `processes`, or with torchrun, "
                      "mpirun or srun");
    return result;
  }

 private:
  const VariableLookup& lookup_;
};

bool within_step(const Variables& variables) { return variables.has("SLURM_STEP_ID") || variables.has("SLURM_STEPID"); }

const Starter* find_starter(const Variables& variables) {
  for (const Starter& starter : starters) {
    // A batch script has srun's variables too, with the number of tasks that it may start.
    if (&starter == &srun && !within_step(variables)) continue;
    const bool rank = variables.has(starter.rank);
    const bool size = variables.has(starter.world_size);
    if (rank && size) return &starter;
    if (rank || size)
      throw bad_input(fmt::format("{} without {}", rank ? starter.rank : starter.world_size,
                                  rank ? starter.world_size : starter.rank),
                      "both or neither", "set the other one, or unset it to train in one process");
  }
  return nullptr;
}

Error bad_address(const std::string& address) {
  return bad_input(fmt::format("MASTER_ADDR is '{}'", shortened(address)),
                   "the name or address of rank 0's machine, without a port", "such as 127.0.0.1 or node-01");
}

void check_address(const std::string& address) {
  std::array<char, sizeof(in6_addr)> parsed = {};
  if (address.find(':') != std::string::npos) {
    const std::string without_scope = address.substr(0, address.find('%'));
    if (::inet_pton(AF_INET6, without_scope.c_str(), parsed.data()) != 1) throw bad_address(address);
    return;
  }
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
  };
  const auto is_number = [](char c) { return (c >= '0' && c <= '9') || c == '.'; };
  const bool numeric = std::all_of(address.begin(), address.end(), is_number);
  const bool good = address.size() <= 253 && address.front() != '-' && address.front() != '.' &&
                    std::all_of(address.begin(), address.end(), [&](char c) { return is_letter(c) || is_number(c); });
  if (!good || (numeric && ::inet_pton(AF_INET, address.c_str(), parsed.data()) != 1)) throw bad_address(address);
}

// The first of "node[07-12,20],login" is "node07"; nothing if the list is not understood.
std::optional<std::string> first_host(std::string_view list) {
  std::string host;
  while (!list.empty() && list.front() != ',') {
    if (list.front() != '[') {
      host += list.front();
      list.remove_prefix(1);
      continue;
    }
    const std::size_t close = list.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    const std::string_view numbers = list.substr(1, close - 1);
    const std::string_view first = numbers.substr(0, numbers.find_first_of("-,"));
    if (first.empty()) return std::nullopt;
    host += first;
    list.remove_prefix(close + 1);
  }
  if (host.empty() || host.find(']') != std::string::npos) return std::nullopt;
  return host;
}

std::optional<std::string> address_of_step(const Variables& variables) {
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"})
    if (const auto list = variables.text(name)) return first_host(*list);
  // Where srun was called from may be another machine, unless there is only one.
  for (const char* name : {"SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"})
    if (variables.text(name) == "1") return variables.text("SLURM_LAUNCH_NODE_IPADDR");
  return std::nullopt;
}

void read_master(const Variables& variables, bool step, WorkerEnvironment& result) {
  std::optional<std::string> address = variables.text("MASTER_ADDR");
  if (!address && step) address = address_of_step(variables);
  const bool alone = result.world_size == 1;
  if (!address && !alone)
    throw bad_input("MASTER_ADDR is not set", "the name or address of rank 0's machine",
                    "set it for every rank, such as MASTER_ADDR=127.0.0.1 where all run on one machine");
  result.master_address = address.value_or("127.0.0.1");
  check_address(result.master_address);
  const std::optional<int> port = variables.number("MASTER_PORT", 1, 65'535);
  if (!port && !alone)
    throw bad_input("MASTER_PORT is not set", "a free port of rank 0's machine, 1 to 65535",
                    "set it for every rank, such as MASTER_PORT=29500");
  result.master_port = port.value_or(0);
}

void read_ranks(const Variables& variables, const Starter& starter, WorkerEnvironment& result) {
  result.world_size = *variables.number(starter.world_size, 1, most_ranks);
  result.rank = *variables.number(starter.rank, 0, most_ranks);
  if (result.rank >= result.world_size)
    throw bad_input(
        fmt::format("{} is {} and {} is {}", starter.rank, result.rank, starter.world_size, result.world_size),
        fmt::format("a rank below {}", result.world_size), "number the ranks from 0");
  result.local_rank = variables.number(starter.local_rank, 0, most_ranks);
  result.local_world_size = variables.number(starter.local_world_size, 1, most_ranks);
  const int local_size = std::min(result.local_world_size.value_or(result.world_size), result.world_size);
  if (result.local_rank.value_or(0) >= local_size)
    throw bad_input(fmt::format("{} is {}", starter.local_rank, *result.local_rank),
                    fmt::format("below {}, the number of ranks on this machine", local_size),
                    "number the ranks of each machine from 0");
}

}  // namespace

std::optional<std::string> environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe): the header says so
  if (value == nullptr) return std::nullopt;
  return value;
}

std::optional<WorkerEnvironment> worker_environment(const VariableLookup& lookup) {
  const Variables variables(lookup);
  const Starter* starter = find_starter(variables);
  if (starter == nullptr) return std::nullopt;
  WorkerEnvironment result;
  read_ranks(variables, *starter, result);
  read_master(variables, starter == &srun, result);
  const auto identity = variables.text("PENSTOCK_RUN_IDENTITY");
  result.run_identity = identity ? *identity : variables.text(starter->run_identity).value_or("");
  // Within one job there may be several runs.
  if (!identity && starter == &srun)
    result.run_identity +=
        fmt::format(".{}", variables.text("SLURM_STEP_ID").value_or(variables.text("SLURM_STEPID").value_or("")));
  constexpr int most_attempts = 1'000'000'000;
  const auto attempt = variables.number("PENSTOCK_ATTEMPT", 0, most_attempts);
  result.attempt = attempt ? *attempt : variables.number(starter->attempt, 0, most_attempts).value_or(0);
  if (result.rank == 0) result.listen_descriptor = variables.number("PENSTOCK_LISTEN_DESCRIPTOR", 3, 1 << 30);
  result.joined_descriptor = variables.number("PENSTOCK_JOINED_DESCRIPTOR", 3, 1 << 30);
  return result;
}

}  // namespace penstock
