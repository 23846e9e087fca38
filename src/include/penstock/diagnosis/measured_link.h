/// \file
/// How fast a link is: messages of growing sizes there and back, and the line through their times.
#pragma once

#include <cstdint>
#include <vector>

#include "penstock/base/types.h"

namespace penstock {

class Transport;

/// The time of one message of a size, one way: half of there and back.
struct LinkSample {
  Bytes bytes;
  Milliseconds median;
  Milliseconds fastest;

  friend bool operator==(const LinkSample&, const LinkSample&) = default;
};

/// A link between two ranks. It is measured there and back, so that both directions look alike.
struct MeasuredLink {
  int from = 0;
  int to = 0;
  Milliseconds latency;
  double bytes_per_millisecond = 0;
  std::vector<LinkSample> samples;  ///< by size

  friend bool operator==(const MeasuredLink&, const MeasuredLink&) = default;
};

/// The line time = latency + bytes / bandwidth that is nearest to the samples' medians, each error taken as a share of
/// its time. A latency is never below 0. \param link with samples of at least two sizes.
void fit_link(MeasuredLink& link);

/// What the measurement takes.
struct LinkMeasurement {
  Bytes smallest{8};
  Bytes largest{std::int64_t{16} << 20};
  Milliseconds for_each_size{200};  ///< about so long, but at least 3 times there and back
  Milliseconds longest{2'000};      ///< no size beyond one that took longer, there and back
};

/// Sends messages of 8 B, 64 B, … between every two ranks in turn, or with more than 8 ranks between neighbours, while
/// all others wait. Must be called by all ranks at once. Rank 0 gets all links, `from` below `to`; the others nothing.
/// \throws Aborted
[[nodiscard]] std::vector<MeasuredLink> measure_links(Transport& transport, const LinkMeasurement& measurement = {});

}  // namespace penstock
