/// \file
/// Sockets that listen: on which address, and on which port. For a program that chooses the port at which its processes
/// meet:
///
///     penstock::ProcessSettings first;  // of process 0
///     first.listening_socket = penstock::listen_on("127.0.0.1", 0);
///     first.port = penstock::port_of(first.listening_socket);  // tell the others
#pragma once

#include <string>

namespace penstock {

/// A socket that listens on `address` and `port` only, as a descriptor. \throws Error (BadInput) if the address has
/// no name or is not this machine's, or the port is taken.
[[nodiscard]] int listen_on(const std::string& address, int port);

/// The port that a listening socket has. \throws Error (BadInput) if it is no socket.
[[nodiscard]] int port_of(int socket);

/// The address of this machine by which `address` is reached: loopback for loopback. \throws Error (BadInput) if it
/// cannot be resolved.
[[nodiscard]] std::string address_towards(const std::string& address);

/// Whether this machine can take connections at an address, which a setting named. Takes none.
/// \throws Error (BadInput) that names the setting where it has no such name or address.
void check_own_address(const std::string& setting, const std::string& address);

}  // namespace penstock
