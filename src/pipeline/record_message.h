// Structured records in messages between the processes of one run, which are one build of penstock on machines alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fmt/format.h>
#include <span>
#include <type_traits>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/memory.h"
#include "penstock/transport/layout.h"
#include "penstock/transport/transport.h"

namespace penstock {

// Sends records; the message is freed by whoever reads it, and counts as no rank's memory.
template <class Record>
void send_records(Transport& transport, RankId to, const Tag& tag, const std::vector<Record>& records) {
  static_assert(std::is_trivially_copyable_v<Record> && std::is_default_constructible_v<Record>);
  const UncountedMemory exchanged;
  const std::size_t bytes = records.size() * sizeof(Record);
  const at::Tensor message = at::empty({static_cast<std::int64_t>(bytes)}, at::kByte);
  if (bytes > 0) std::memcpy(message.mutable_data_ptr(), records.data(), bytes);
  transport.send(to, tag, {message});
}

// Waits for records of that kind. Throws Error (RunFailed) if the message is no contiguous tensor
// of bytes, or holds no whole number of them.
template <class Record>
[[nodiscard]] std::vector<Record> receive_records(Transport& transport, RankId from, const Tag& tag) {
  static_assert(std::is_trivially_copyable_v<Record> && std::is_default_constructible_v<Record>);
  const UncountedMemory exchanged;
  const at::Tensor message = transport.receive(from, tag).at(0);
  const std::span<const std::uint8_t> bytes = numbers_of<std::uint8_t>(message);
  if (bytes.size() % sizeof(Record) != 0)
    throw run_failed(fmt::format("a report of {} bytes", bytes.size()),
                     fmt::format("{} for each record", sizeof(Record)),
                     "start every process of the run with the same penstock");
  std::vector<Record> records(bytes.size() / sizeof(Record));
  if (!bytes.empty()) std::memcpy(records.data(), bytes.data(), bytes.size());
  return records;
}

}  // namespace penstock
