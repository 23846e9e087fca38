// A device for tests: two of a type that libtorch knows and has no kernels for (HPU). Its kernels are the host's and
// run at once, and which checks what a real one would leave to luck: that whatever a stream reads or overwrites was
// made before, by an order of streams, events and waits of the host, and that memory is given back only when every
// stream has done with it.
#pragma once

#include <string>
#include <vector>

#include <c10/core/Device.h>

namespace penstock {

inline constexpr c10::DeviceType checked_device = c10::DeviceType::HPU;

// Registers the device, once.
void register_checked_device();

// What was out of order since the last call, one line each.
[[nodiscard]] std::vector<std::string> take_races();

// How often a device copied from the other, and how often the host waited, since the registration.
struct CheckedCounts {
  int copies_between = 0;
  int host_waits = 0;
};
[[nodiscard]] CheckedCounts checked_counts();

}  // namespace penstock
