/// \file
/// What this build of libtorch brings for talking between processes, and which devices it sees. Free of libtorch.
#pragma once

#include <string>
#include <vector>

namespace penstock {

/// A backend of c10d, whether libtorch has it, and whether penstock uses it.
struct BackendPresence {
  std::string name;
  bool present = false;
  bool used = false;

  friend bool operator==(const BackendPresence&, const BackendPresence&) = default;
};

/// libtorch's own version, "2.13.0".
[[nodiscard]] std::string libtorch_version();
/// gloo, nccl and mpi.
[[nodiscard]] std::vector<BackendPresence> c10d_backends();
/// "cpu", and "cuda:0" and so on where there are any.
[[nodiscard]] std::vector<std::string> visible_devices();

}  // namespace penstock
