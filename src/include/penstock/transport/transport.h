/// \file
/// How tensors get from rank to rank. A message is addressed by its tag, not by its place in a stream, so that ranks
/// may send and receive in different orders. Sends never block.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/error.h"
#include "penstock/base/types.h"

namespace penstock {

/// What a message carries. Its values belong to those who send (exec/message_kind.h): a transport compares them, and
/// knows none of them. Those from `first_own_kind` on are its own functions'.
enum class MessageKind : std::uint8_t;
inline constexpr MessageKind first_own_kind{0xf0};

/// The most tensors in one message to another process.
inline constexpr std::size_t most_message_tensors = 65'535;

/// The address of a message within a pair of ranks. Opaque to a transport.
struct Tag {
  MessageKind kind{};
  std::int32_t channel = 0;
  std::int32_t microbatch = 0;

  friend auto operator<=>(const Tag&, const Tag&) = default;
};

/// Thrown by a receive when some rank has called `abort`: this rank is healthy and only has to stop.
class Aborted : public Error {
 public:
  /// \param peer_is_lost whether nobody said why: another process is gone or silent.
  explicit Aborted(const std::string& reason, bool peer_is_lost = false)
      : Error(ErrorKind::RunFailed, reason), peer_is_lost_(peer_is_lost) {}
  [[nodiscard]] bool peer_is_lost() const { return peer_is_lost_; }

 private:
  bool peer_is_lost_;
};

/// One rank's end of the transport. Used by that rank's thread alone, but for `abort`, which any thread may call.
class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  Transport(Transport&&) = delete;
  Transport& operator=(Transport&&) = delete;
  virtual ~Transport() = default;

  [[nodiscard]] virtual RankId rank() const = 0;
  [[nodiscard]] virtual int ranks() const = 0;

  /// Hands `message` over, with what says whether its tensors require gradients, and returns at once. Messages of one
  /// tag arrive in the order in which they were sent. The receiver may get the very storage that was sent: the sender
  /// must not write to it afterwards. It is freed on another thread. A rank that has nothing to wait for learns
  /// here that it has to stop. A tensor that goes to another process arrives with its values, dtype, sizes and strides,
  /// whatever these are, in memory of its own: of the span from its first element to its last and no more.
  /// \throws Aborted after an `abort`; Error (BadInput), to another process, for more than `most_message_tensors`, a
  /// dtype that the format has no number for, or what `check_is_plain_memory` refuses: nothing has then been sent, and
  /// whoever catches it lets the other ranks know by `abort`.
  virtual void send(RankId to, const Tag& tag, std::vector<at::Tensor> message) = 0;

  /// Waits for the next message of that tag. \throws Aborted
  [[nodiscard]] virtual std::vector<at::Tensor> receive(RankId from, const Tag& tag) = 0;

  /// When the message that `receive` returned last had come to this rank, on the machine's `SteadyClock`: perhaps long
  /// before it was asked for.
  [[nodiscard]] virtual Milliseconds last_arrival() const = 0;
  /// Whether the next `receive` of that tag would not wait. \throws Aborted
  [[nodiscard]] virtual bool has_arrived(RankId from, const Tag& tag) = 0;

  /// Makes every pending and later receive, and every later send, of every rank throw `Aborted` with `reason`. The
  /// first reason stays.
  virtual void abort(const std::string& reason) noexcept = 0;
};

/// Settings of the transport between threads of one process.
struct InprocSettings {
  /// How long a receive spins before it sleeps, in microseconds. Spinning saves the wake-up of a thread, some tens of
  /// microseconds, but only where each rank has a core of its own; 0 sleeps at once. Typical: 200, or 0.
  double spin_us = 0;
};

/// How long receives should spin, in microseconds, where so many ranks share this machine: 200 where each can have a
/// core of its own, otherwise 0.
[[nodiscard]] double spin_us_for(int ranks);

/// The ends of all ranks of a transport between threads of one process, by rank. A message moves as a reference.
/// \param ranks at least 1.
[[nodiscard]] std::vector<std::unique_ptr<Transport>> make_inproc_transport(int ranks,
                                                                            const InprocSettings& settings = {});

/// Every rank gives its `values` and gets those of all ranks, by rank: the same on every rank, in the same order.
/// Must be called by all ranks. Two hops, over rank 0. \throws Aborted
[[nodiscard]] std::vector<std::vector<double>> all_gather(Transport& transport, const std::vector<double>& values);

/// The same in two halves and one hop, from each rank to each other: the values of one rank do not wait for what
/// another is doing. The first half does not wait.
void send_to_each(Transport& transport, const std::vector<double>& values);
/// The second half, given the same values. \throws Aborted
[[nodiscard]] std::vector<std::vector<double>> receive_from_each(Transport& transport,
                                                                 const std::vector<double>& values);

/// Every member gives a text and gets those of all, in the order of `members`. Must be called by all members, and by
/// nobody else; over the first of them. \throws Aborted
[[nodiscard]] std::vector<std::string> all_gather_texts(Transport& transport, const std::string& text,
                                                        const std::vector<RankId>& members);

}  // namespace penstock
