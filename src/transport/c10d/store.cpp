#include "transport/c10d/store.h"

#include <algorithm>
#include <arpa/inet.h>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <future>
#include <memory>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <system_error>
#include <thread>
#include <utility>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "penstock/base/error.h"
#include "penstock/base/listening.h"
#include "penstock/base/thread.h"

namespace penstock {
namespace {

using StorePointer = c10::intrusive_ptr<c10d::Store>;

Error nobody_at(const ProcessSettings& settings) {
  return run_failed(
      fmt::format("nobody at {}:{} for {:.0f} s", settings.address, settings.port, settings.join_timeout.count / 1000),
      "process 0 of the run", "start process 0, and check MASTER_ADDR and MASTER_PORT; `join_timeout` waits longer");
}

int port_of_peer(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return 0;
}

// TCPStore reads its answers without a limit of time, and hands its socket out to nobody: the process's sockets that
// are connected to that port get one.
void limit_answers(int port, Milliseconds timeout) {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(timeout.count / 1000);
  limit.tv_usec = static_cast<suseconds_t>((timeout.count / 1000 - static_cast<double>(limit.tv_sec)) * 1e6);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const int socket = std::atoi(entry.path().filename().c_str());
    if (port_of_peer(socket) == port) ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
}

// On a thread of its own: its constructor asks whether the store is there, and waits for the answer for good where the
// process that keeps it is stopped. Such a thread is left behind; it holds nothing of the caller's.
StorePointer connected(const ProcessSettings& settings, const c10d::TCPStoreOptions& options) {
  std::promise<StorePointer> promise;
  std::future<StorePointer> store = promise.get_future();
  start_thread([promise = std::move(promise), address = settings.address, options]() mutable {
    try {
      promise.set_value(c10::make_intrusive<c10d::TCPStore>(address, options));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }).detach();
  // The connection has the same limit, and says more.
  constexpr std::chrono::seconds longer{1};
  auto deadline = std::chrono::steady_clock::now() + to_chrono(settings.join_timeout) + longer;
  // Whoever is asked to stop still tells those that wait for it, if there is somebody to tell: process 0's own store is
  // there soon, and so is one that has just been called.
  constexpr std::chrono::seconds asked_longer{2};
  constexpr std::chrono::milliseconds between{50};
  while (store.wait_for(between) != std::future_status::ready) {
    const bool gives_up = !options.isServer && settings.asked_to_stop && settings.asked_to_stop() != 0;
    const auto now = std::chrono::steady_clock::now();
    if (gives_up) deadline = std::min(deadline, now + asked_longer);
    if (now >= deadline) throw nobody_at(settings);
  }
  try {
    return store.get();
  } catch (const std::exception&) {
    throw nobody_at(settings);
  }
}

}  // namespace

StorePointer open_store(const ProcessSettings& settings) {
  c10d::TCPStoreOptions options;
  options.timeout = to_chrono(settings.join_timeout);
  options.waitWorkers = false;
  options.port = static_cast<std::uint16_t>(settings.port);
  options.isServer = settings.process == 0 && !settings.store_is_elsewhere;
  if (options.isServer) {
    const int socket =
        settings.listening_socket >= 0 ? settings.listening_socket : listen_on(settings.address, settings.port);
    options.masterListenFd = socket;
    options.port = static_cast<std::uint16_t>(port_of(socket));
  } else {
    static_cast<void>(address_towards(settings.address));
  }
  StorePointer store = connected(settings, options);
  limit_answers(options.port, settings.join_timeout);
  return store;
}

}  // namespace penstock
