#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <string>
#include <thread>

#include <torch/version.h>

#include "penstock/profile/profile.h"

namespace penstock {
namespace {

// As Linux tells it; elsewhere nothing.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

Description describe_machine(const ProfileSettings& settings) {
  std::vector<std::string> devices;
  devices.reserve(settings.devices.size());
  for (const at::Device device : settings.devices) devices.push_back(device.str());
  return {{"processor", processor_name()},
          {"cores", std::to_string(std::thread::hardware_concurrency())},
          {"libtorch", TORCH_VERSION},
          {"devices", devices.empty() ? "cpu" : fmt::format("{}", fmt::join(devices, ","))},
          {"ranks", std::to_string(settings.ranks)},
          {"threads_per_rank", std::to_string(settings.threads_per_rank)}};
}

}  // namespace penstock
