#include "penstock/transport/backends.h"

#include <fmt/format.h>

#include <ATen/Context.h>
#include <torch/version.h>

#include "transport/device/direct.h"
#include "transport/gloo/backend.h"

namespace penstock {
namespace {

#ifdef USE_C10D_GLOO
constexpr bool libtorch_has_gloo = true;
#else
constexpr bool libtorch_has_gloo = false;
#endif
#ifdef USE_C10D_NCCL
constexpr bool libtorch_has_nccl = true;
#else
constexpr bool libtorch_has_nccl = false;
#endif
#ifdef USE_C10D_MPI
constexpr bool libtorch_has_mpi = true;
#else
constexpr bool libtorch_has_mpi = false;
#endif

}  // namespace

std::string libtorch_version() { return TORCH_VERSION; }

std::vector<BackendPresence> c10d_backends() {
  return {{"gloo", libtorch_has_gloo, has_backend()},
          {"nccl", libtorch_has_nccl, has_nccl()},
          {"mpi", libtorch_has_mpi, false}};
}

std::vector<std::string> visible_devices() {
  std::vector<std::string> devices{"cpu"};
  const std::size_t count = at::hasCUDA() ? at::getNumGPUs() : 0;
  for (std::size_t index = 0; index < count; ++index) devices.push_back(fmt::format("cuda:{}", index));
  return devices;
}

}  // namespace penstock
