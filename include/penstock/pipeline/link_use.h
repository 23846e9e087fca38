/// \file
/// What the boundaries between ranks cost a run, by link.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/base/units.h"

namespace penstock {

/// What went from one rank to another in training steps, and how long it took. A message's transfer goes from the start
/// of its send to its arrival; hidden is what of it the receiving rank did not wait for.
struct LinkUse {
  int from = 0;  ///< rank
  int to = 0;    ///< rank
  bool between_processes = false;
  Bytes bytes;  ///< of boundaries' tensors, as they travelled
  std::int64_t messages = 0;
  Milliseconds waited;    ///< the receiving rank stood in its receives: for the sender's work and for the transfer
  Milliseconds transfer;  ///< of all messages, one after the other
  Milliseconds hidden;    ///< of the transfer, while the receiving rank did something else

  friend bool operator==(const LinkUse&, const LinkUse&) = default;
};

/// The share of the transfer that was hidden; 1 where nothing took time.
[[nodiscard]] double hidden_share(const LinkUse& use);

/// A table with a line for each link; of more than `most` links those that were waited for longest, and all others in
/// one line. Empty where there is no link.
[[nodiscard]] std::string link_table(const std::vector<LinkUse>& links, std::size_t most = 16);

/// A list of objects: `from`, `to`, `between_processes`, `bytes`, `messages`, `waited_ms`, `transfer_ms`, `hidden`.
[[nodiscard]] std::string to_json(const std::vector<LinkUse>& links);

}  // namespace penstock
