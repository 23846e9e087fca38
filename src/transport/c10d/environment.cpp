#include "penstock/launch/environment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "penstock/transport/c10d.h"

namespace penstock {

std::optional<ProcessSettings> process_of_environment() {
  const std::optional<WorkerEnvironment> environment = worker_environment();
  if (!environment) return std::nullopt;
  ProcessSettings settings;
  settings.process = environment->rank;
  settings.processes = environment->world_size;
  settings.processes_here = environment->local_world_size.value_or(0);
  settings.address = environment->master_address;
  settings.port = environment->master_port;
  if (!environment->run_identity.empty())
    settings.run_identity = fmt::format("{}/{}", environment->run_identity, environment->attempt);
  if (environment->listen_descriptor) {
    settings.listening_socket = *environment->listen_descriptor;
    ::fcntl(settings.listening_socket, F_SETFD, FD_CLOEXEC);
  }
  if (environment->joined_descriptor) ::fcntl(*environment->joined_descriptor, F_SETFD, FD_CLOEXEC);
  // torchrun's agent has a store of its own where the variables point to.
  settings.store_is_elsewhere = environment_variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return settings;
}

void tell_joined() {
  const std::optional<WorkerEnvironment> environment = worker_environment();
  if (environment && environment->joined_descriptor) ::close(*environment->joined_descriptor);
}

}  // namespace penstock
