#include "penstock/base/listening.h"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Addresses resolve(const std::string& address, int port, int type) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = type;
  addrinfo* found = nullptr;
  const int problem = getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (problem != 0 || found == nullptr)
    throw bad_input(fmt::format("the address \"{}\": {}", address, gai_strerror(problem)), "a host's name or number",
                    "set MASTER_ADDR to the machine of process 0");
  return {found, freeaddrinfo};
}

// Closed when it goes out of scope, unless it is released.
class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  Socket(Socket&&) = delete;
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  [[nodiscard]] int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_;
};

}  // namespace

int listen_on(const std::string& address, int port) {
  const Addresses found = resolve(address, port, SOCK_STREAM);
  Socket listening(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  constexpr int waiting = 1024;
  if (listening.get() < 0 || setsockopt(listening.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(listening.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(listening.get(), waiting) != 0) {
    const int problem = errno;
    throw bad_input(fmt::format("port {} of {}: {}", port, address, std::strerror(problem)),  // NOLINT: not shared
                    "an address of this machine and a free port for process 0",
                    problem == EADDRINUSE ? "choose another MASTER_PORT" : "set MASTER_ADDR to this machine's address");
  }
  return listening.release();
}

void check_own_address(const std::string& setting, const std::string& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int problem = getaddrinfo(address.c_str(), nullptr, &hints, &list);
  const Addresses found(list, [](addrinfo* old) {
    if (old != nullptr) freeaddrinfo(old);
  });
  std::string reason = problem == 0 ? "" : gai_strerror(problem);
  for (const addrinfo* one = found.get(); problem == 0 && one != nullptr; one = one->ai_next) {
    const Socket listening(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (listening.get() >= 0 && bind(listening.get(), one->ai_addr, one->ai_addrlen) == 0) return;
    reason = std::strerror(errno);  // NOLINT: not shared
  }
  throw bad_input(fmt::format("{} {}: {}", setting, shortened(address), reason), "a name or address of this machine",
                  fmt::format("see ip address, or leave {} out", setting));
}

int port_of(int socket) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&bound), &size) != 0)  // NOLINT: as sockets are
    throw bad_input(fmt::format("the descriptor {}", socket), "a listening socket", "leave it to penstock launch");
  return bound.ss_family == AF_INET6 ? ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port)  // NOLINT
                                     : ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);   // NOLINT
}

std::string address_towards(const std::string& address) {
  // Connecting a datagram socket sends nothing; it only chooses the way.
  constexpr int any_port = 9;
  const Addresses found = resolve(address, any_port, SOCK_DGRAM);
  const Socket way(socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  std::array<char, NI_MAXHOST> name{};
  if (way.get() < 0 || connect(way.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      getsockname(way.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0 ||  // NOLINT: as sockets are
      getnameinfo(reinterpret_cast<sockaddr*>(&own), size, name.data(), name.size(), nullptr, 0,  // NOLINT
                  NI_NUMERICHOST) != 0)
    throw bad_input(fmt::format("the address \"{}\", to which there is no way", address),
                    "a machine that can be reached", "check MASTER_ADDR and the network");
  return name.data();
}

}  // namespace penstock
