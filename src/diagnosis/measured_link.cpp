#include "penstock/diagnosis/measured_link.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/exec/message_kind.h"
#include "penstock/transport/layout.h"
#include "penstock/transport/transport.h"

namespace penstock {
namespace {

constexpr std::int64_t size_step = 8;
constexpr int least_rounds = 3;
constexpr int most_rounds = 100;
constexpr int ranks_that_all_meet = 8;

// What the lower rank of a pair tells the higher one: so many messages of a size; 0: that was all.
constexpr Tag order_tag{MessageKind::Report, 0, 1};
constexpr Tag payload_tag{MessageKind::Probe, 0, 0};

std::vector<std::pair<int, int>> pairs_of(int ranks) {
  std::vector<std::pair<int, int>> pairs;
  for (int low = 0; low < ranks; ++low)
    for (int high = low + 1; high < (ranks <= ranks_that_all_meet ? ranks : std::min(low + 2, ranks)); ++high)
      pairs.emplace_back(low, high);
  return pairs;
}

class Pinging {
 public:
  Pinging(Transport& transport, int other, const LinkMeasurement& measurement)
      : transport_(transport), other_{other}, measurement_(measurement) {}

  std::vector<LinkSample> ping() {
    std::vector<LinkSample> samples;
    Milliseconds last;
    for (std::int64_t bytes = measurement_.smallest.count;
         bytes <= measurement_.largest.count && last <= measurement_.longest; bytes *= size_step) {
      // The first also makes the memory and opens the window.
      const Milliseconds first = fastest_of(there_and_back(bytes, 2));
      const double fit = measurement_.for_each_size.count / std::max(first.count, 1e-3);
      const int rounds = static_cast<int>(std::clamp<double>(fit, least_rounds, most_rounds));
      const std::vector<Milliseconds> times = there_and_back(bytes, rounds);
      std::vector<double> counts;
      counts.reserve(times.size());
      for (const Milliseconds time : times) counts.push_back(time.count);
      last = {median(std::move(counts))};
      samples.push_back({{bytes}, last * 0.5, fastest_of(times) * 0.5});
    }
    announce(0, 0);
    return samples;
  }

  void pong() {
    for (;;) {
      const at::Tensor order = transport_.receive(other_, order_tag).at(0);
      const std::int64_t bytes = numbers_of<std::int64_t>(order)[0];
      if (bytes == 0) return;
      const at::Tensor payload = at::zeros({bytes}, at::kByte);
      for (std::int64_t round = numbers_of<std::int64_t>(order)[1]; round > 0; --round) {
        static_cast<void>(transport_.receive(other_, payload_tag));
        transport_.send(other_, payload_tag, {payload});
      }
    }
  }

 private:
  void announce(std::int64_t bytes, std::int64_t rounds) {
    transport_.send(other_, order_tag, {at::tensor({bytes, rounds}, at::kLong)});
  }

  static Milliseconds fastest_of(const std::vector<Milliseconds>& times) {
    return *std::min_element(times.begin(), times.end());
  }

  std::vector<Milliseconds> there_and_back(std::int64_t bytes, int rounds) {
    const at::Tensor payload = at::zeros({bytes}, at::kByte);
    announce(bytes, rounds);
    std::vector<Milliseconds> times;
    for (int round = 0; round < rounds; ++round) {
      const Milliseconds start = clock_.now();
      transport_.send(other_, payload_tag, {payload});
      static_cast<void>(transport_.receive(other_, payload_tag));
      times.push_back(clock_.now() - start);
    }
    return times;
  }

  Transport& transport_;
  RankId other_;
  const LinkMeasurement& measurement_;
  SteadyClock clock_;
};

std::vector<double> as_numbers(const std::vector<LinkSample>& samples) {
  std::vector<double> numbers;
  for (const LinkSample& sample : samples)
    numbers.insert(numbers.end(), {static_cast<double>(sample.bytes.count), sample.median.count, sample.fastest.count});
  return numbers;
}

std::vector<LinkSample> samples_of(const std::vector<double>& numbers) {
  std::vector<LinkSample> samples;
  for (std::size_t next = 0; next + 2 < numbers.size(); next += 3)
    samples.push_back({{static_cast<std::int64_t>(numbers[next])}, {numbers[next + 1]}, {numbers[next + 2]}});
  return samples;
}

}  // namespace

void fit_link(MeasuredLink& link) {
  // Weighted by 1 / time²: the smallest sizes, which announce the latency, count as much as the largest.
  double weight = 0;
  double bytes = 0;
  double time = 0;
  double bytes_squared = 0;
  double bytes_by_time = 0;
  for (const LinkSample& sample : link.samples) {
    const double sample_ms = std::max(sample.median.count, 1e-6);
    const double share = 1 / (sample_ms * sample_ms);
    const auto size = static_cast<double>(sample.bytes.count);
    weight += share;
    bytes += share * size;
    time += share * sample_ms;
    bytes_squared += share * size * size;
    bytes_by_time += share * size * sample_ms;
  }
  const double spread = weight * bytes_squared - bytes * bytes;
  const double slope = spread > 0 ? (weight * bytes_by_time - bytes * time) / spread : 0;
  link.latency = {std::max(0.0, (time - slope * bytes) / weight)};
  link.bytes_per_millisecond = 1 / std::max(slope, 1e-12);
}

std::vector<MeasuredLink> measure_links(Transport& transport, const LinkMeasurement& measurement) {
  std::vector<MeasuredLink> links;
  const std::int32_t own = transport.rank().value;
  for (const auto& [low, high] : pairs_of(transport.ranks())) {
    std::vector<LinkSample> samples;
    if (own == low) samples = Pinging(transport, high, measurement).ping();
    if (own == high) Pinging(transport, low, measurement).pong();
    // The others wait here until this pair is done.
    const auto by_rank = all_gather(transport, as_numbers(samples));
    if (own != 0) continue;
    MeasuredLink link{low, high, {}, 0, samples_of(by_rank[static_cast<std::size_t>(low)])};
    fit_link(link);
    links.push_back(std::move(link));
  }
  return links;
}

}  // namespace penstock
