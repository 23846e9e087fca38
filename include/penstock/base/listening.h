/// \file
/// Sockets that listen: on which address, and on which port.
#pragma once

#include <string>

namespace penstock {

/// A socket that listens on `address` and `port` only, as a descriptor. \throws Error (BadInput) where the address has
/// no name or is not this machine's, or the port is taken.
[[nodiscard]] int listen_on(const std::string& address, int port);

/// The port that a listening socket has. \throws Error (BadInput) where it is no socket.
[[nodiscard]] int port_of(int socket);

/// The address of this machine by which `address` is reached: loopback for loopback. \throws Error (BadInput) where it
/// cannot be resolved.
[[nodiscard]] std::string address_towards(const std::string& address);

}  // namespace penstock
