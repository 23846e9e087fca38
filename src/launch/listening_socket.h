// The socket at which the ranks of an attempt meet.
#pragma once

#include <string>

#include "descriptor.h"

namespace penstock::launching {

struct ListeningSocket {
  Descriptor descriptor;
  int port = 0;
  // What the workers connect to: the address itself, or this machine's loopback where the address stands for all.
  std::string reached_at;
};

// Listens on a free port. \throws Error (BadInput) if `address` is not one of this machine's.
[[nodiscard]] ListeningSocket listen_on(const std::string& address);

}  // namespace penstock::launching
