// The store by which processes find each other, over sockets of this machine.
#include "transport/c10d/store.h"

#include <gtest/gtest.h>
#include <string>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/listening.h"
#include "penstock/transport/c10d.h"

namespace penstock::store_test {
namespace {

ProcessSettings settings_of(int process, int port) {
  ProcessSettings settings;
  settings.process = process;
  settings.processes = 2;
  settings.ranks = 2;
  settings.address = "127.0.0.1";
  settings.port = port;
  settings.join_timeout = {60'000};
  return settings;
}

TEST(Store, ProcessZeroKeepsItAlsoWhereItIsAskedToStop) {
  ProcessSettings settings = settings_of(0, 0);
  settings.listening_socket = listen_on(settings.address, 0);
  settings.asked_to_stop = [] { return 15; };
  const auto store = open_store(settings);
  store->set("asked", std::string("yes"));
  EXPECT_EQ(store->get_to_str("asked"), "yes");
}

// Whoever waits for it hears that it stops.
TEST(Store, OneThatIsAskedToStopAsItCallsGetsThrough) {
  ProcessSettings first = settings_of(0, 0);
  first.listening_socket = listen_on(first.address, 0);
  ProcessSettings second = settings_of(1, port_of(first.listening_socket));
  c10::intrusive_ptr<c10d::Store> kept;
  second.asked_to_stop = [&] {
    if (!kept) kept = open_store(first);
    return 15;
  };
  const auto store = open_store(second);
  kept->set("asked", std::string("yes"));
  EXPECT_EQ(store->get_to_str("asked"), "yes");
}

TEST(Store, OneThatIsAskedToStopWaitsForNobody) {
  ProcessSettings nobody = settings_of(1, 0);
  const int socket = listen_on(nobody.address, 0);
  nobody.port = port_of(socket);  // which never answers
  nobody.asked_to_stop = [] { return 15; };
  EXPECT_THROW(static_cast<void>(open_store(nobody)), Error);
  close(socket);
}

}  // namespace
}  // namespace penstock::store_test
