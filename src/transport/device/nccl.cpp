#include <array>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <utility>

#include <ATen/cuda/CUDAContext.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "transport/device/direct.h"

namespace penstock {
namespace {

// The UUID that the driver gives it, the same in every process whatever CUDA_VISIBLE_DEVICES makes of its number. NCCL
// joins a device to itself only where its processes have been given host names of their own.
std::string identity_of(at::Device device) {
  if (!device.is_cuda()) return {};
  const cudaDeviceProp* properties = at::cuda::getDeviceProperties(device.index());
  const char* host = std::getenv("NCCL_HOSTID");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  std::string text = fmt::format("{} cuda ", host == nullptr ? "" : host);
  for (const char byte : properties->uuid.bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

// A link finds out who is dead or silent, and aborts the channels, all of them at once: libtorch's own watchers would
// do it one by one, each waiting for the others, or end the process. Whoever has set them otherwise keeps it.
void leave_watching_to_the_links() {
  // After an error they sleep four times as long as a dump may take, a minute if nobody says otherwise.
  constexpr std::array<std::pair<const char*, const char*>, 4> settings{{{"TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"},
                                                                         {"TORCH_NCCL_ENABLE_MONITORING", "0"},
                                                                         {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
                                                                         {"TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "1"}}};
  constexpr int keep = 0;
  for (const auto& [name, value] : settings) setenv(name, value, keep);  // NOLINT(concurrency-mt-unsafe): at the start
}

}  // namespace

bool has_nccl() { return true; }

DirectBackend nccl() {
  leave_watching_to_the_links();
  return {identity_of, [](const c10::intrusive_ptr<c10d::Store>& store, int member) {
            constexpr int members = 2;
            const auto options = c10d::ProcessGroupNCCL::Options::create();
            options->timeout = std::chrono::hours(24 * 365);
            return c10::intrusive_ptr<c10d::Backend>(
                c10::make_intrusive<c10d::ProcessGroupNCCL>(store, member, members, options));
          }};
}

}  // namespace penstock
