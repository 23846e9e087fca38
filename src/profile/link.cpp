#include <cmath>
#include <future>
#include <limits>

#include <ATen/ATen.h>

#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/exec/device.h"
#include "penstock/exec/message_kind.h"
#include "penstock/profile/profile.h"
#include "penstock/transport/transport.h"

namespace penstock {
namespace {

constexpr int round_trips = 40;
constexpr std::int64_t smallest_message = 1 << 10;
constexpr std::int64_t largest_message = 1 << 24;

at::Device device_of(const ProfileSettings& settings, std::size_t rank) {
  return settings.devices.empty() ? at::Device(at::kCPU) : settings.devices[rank % settings.devices.size()];
}

// Half of a round trip, the median of several.
double half_trip(const std::vector<std::unique_ptr<Transport>>& ends,
                 const std::vector<std::unique_ptr<DeviceLane>>& lanes, std::int64_t bytes) {
  const Tag tag{MessageKind::Probe, 0, 0};
  std::future<void> other = std::async(std::launch::async, [&] {
    lanes[1]->enter({});
    for (int trip = 0; trip < round_trips; ++trip) {
      std::vector<at::Tensor> message = ends[1]->receive(RankId{0}, tag);
      lanes[1]->wait();
      ends[1]->send(RankId{0}, tag, std::move(message));
    }
  });
  const SteadyClock clock;
  std::vector<double> half_trips;
  lanes[0]->enter({});
  for (int trip = 0; trip < round_trips; ++trip) {
    std::vector<at::Tensor> message{at::zeros({bytes}, at::TensorOptions(lanes[0]->device()).dtype(at::kByte))};
    lanes[0]->wait();
    const Milliseconds start = clock.now();
    ends[0]->send(RankId{1}, tag, std::move(message));
    message = ends[0]->receive(RankId{1}, tag);
    lanes[0]->wait();
    half_trips.push_back((clock.now() - start).count / 2);
  }
  other.get();
  return quantile(half_trips, 0.5);
}

}  // namespace

LinkCost profile_link(const ProfileSettings& settings) {
  if (settings.ranks < 2) return {};
  LinkCost link;
  // The current streams are the caller's: another thread measures.
  std::future<void> measuring = std::async(std::launch::async, [&] {
    std::vector<std::unique_ptr<DeviceLane>> lanes;
    lanes.push_back(std::make_unique<DeviceLane>(device_of(settings, 0)));
    lanes.push_back(std::make_unique<DeviceLane>(device_of(settings, 1)));
    const auto ends =
        ordered_by_events(make_inproc_transport(2, {spin_us_for(settings.ranks)}), {lanes[0].get(), lanes[1].get()});
    std::vector<std::pair<std::int64_t, double>> measured;
    for (std::int64_t bytes = smallest_message; bytes <= largest_message; bytes *= 16)
      measured.emplace_back(bytes, half_trip(ends, lanes, bytes));
    link.latency = {measured.front().second};
    // What grows by less than the latency itself varies is none of the size's.
    const double growth = measured.back().second - measured.front().second;
    if (growth > 2 * measured.front().second)
      link.bytes_per_millisecond = static_cast<double>(largest_message - smallest_message) / growth;
  });
  measuring.get();
  return link;
}

}  // namespace penstock
