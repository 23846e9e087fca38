#include "listening_socket.h"

#include <cerrno>
#include <fmt/format.h>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <system_error>

#include "penstock/base/error.h"

namespace penstock::launching {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Error not_ours(const std::string& address, const std::string& reason) {
  return bad_input(fmt::format("cannot listen on {}: {}", shortened(address), reason),
                   "an address or name of this machine", "use 127.0.0.1, or see ip address");
}

Addresses look_up(const std::string& address) {
  addrinfo wanted = {};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int failure = address.empty() ? EAI_NONAME : ::getaddrinfo(address.c_str(), "0", &wanted, &found);
  if (failure != 0) throw not_ours(address.empty() ? "''" : address, ::gai_strerror(failure));
  return {found, &::freeaddrinfo};
}

// The port, and whether the address stands for all of this machine's.
void read_back(ListeningSocket& socket, const std::string& address) {
  sockaddr_storage bound = {};
  socklen_t size = sizeof bound;
  ::getsockname(socket.descriptor.number(), reinterpret_cast<sockaddr*>(&bound), &size);
  socket.reached_at = address;
  if (bound.ss_family == AF_INET6) {
    const auto& six = reinterpret_cast<const sockaddr_in6&>(bound);
    socket.port = ntohs(six.sin6_port);
    if (IN6_IS_ADDR_UNSPECIFIED(&six.sin6_addr)) socket.reached_at = "::1";
  } else {
    const auto& four = reinterpret_cast<const sockaddr_in&>(bound);
    socket.port = ntohs(four.sin_port);
    if (four.sin_addr.s_addr == htonl(INADDR_ANY)) socket.reached_at = "127.0.0.1";
  }
}

}  // namespace

ListeningSocket listen_on(const std::string& address) {
  const Addresses addresses = look_up(address);
  ListeningSocket result;
  result.descriptor =
      Descriptor(::socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC, addresses->ai_protocol), "a socket");
  const int number = result.descriptor.number();
  if (::bind(number, addresses->ai_addr, addresses->ai_addrlen) != 0 || ::listen(number, SOMAXCONN) != 0) {
    const int code = errno;
    throw not_ours(address, std::generic_category().message(code));
  }
  read_back(result, address);
  return result;
}

}  // namespace penstock::launching
