// What every transport must do, whoever makes its ends.
#pragma once

#include <functional>
#include <gtest/gtest.h>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "penstock/transport/transport.h"

#include "conformance/process_ends.h"

namespace penstock::conformance {

using Factory = std::function<Ends(int ranks)>;

// Kinds of messages, which mean nothing to a transport.
inline constexpr MessageKind kind_a{0};
inline constexpr MessageKind kind_b{1};
inline Tag tag_a(std::int32_t microbatch) { return {kind_a, 1, microbatch}; }

class Conformance : public testing::TestWithParam<std::pair<const char*, Factory>> {
 protected:
  // Runs `work` for every rank on a thread of its own.
  static void run(const Ends& ends, const std::function<void(Transport&)>& work) {
    std::vector<std::thread> threads;
    threads.reserve(ends.size());
    for (const auto& end : ends) threads.emplace_back([&work, &end] { work(*end); });
    for (std::thread& thread : threads) thread.join();
  }
  [[nodiscard]] static Ends make(int ranks) { return GetParam().second(ranks); }
  // Otherwise a message is handed over as it is.
  [[nodiscard]] static bool between_processes() { return !std::string_view(GetParam().first).starts_with("inproc"); }
};

}  // namespace penstock::conformance
