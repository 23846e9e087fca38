/// \file
/// Links with a latency and a bandwidth where there are none: for measuring what a pipeline would do between machines,
/// on one.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/transport/transport.h"

namespace penstock {

/// One direction between two ranks: a message of b bytes occupies it for b / bandwidth and arrives `latency` later, one
/// message at a time in the order of the sends.
struct EmulatedLink {
  Milliseconds latency;
  double bytes_per_millisecond = std::numeric_limits<double>::infinity();
};

/// The same ends, of threads of one process, whose messages of some tags a receiver gets no sooner than the link
/// between the two would have brought them. All other messages pass at once. Times are kept to the exactness of a
/// sleep, some tens of microseconds.
/// \param link_between called once for each pair of ranks that has something to send, on the sender's thread.
/// \param is_delayed which tags; called on every rank's thread.
[[nodiscard]] std::vector<std::unique_ptr<Transport>> with_emulated_links(
    std::vector<std::unique_ptr<Transport>> ends,
    const std::function<EmulatedLink(RankId from, RankId to)>& link_between,
    const std::function<bool(const Tag& tag)>& is_delayed);

}  // namespace penstock
