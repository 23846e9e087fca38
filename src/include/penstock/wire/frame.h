/// \file
/// Frames: what processes send each other. A message of tensors becomes one frame, or several where it is large; every
/// frame is checked against what the receiver knows before a byte of it is believed. Knows nothing of libtorch.
///
///     offset  bytes  little-endian
///          0      4  "PSTK"
///          4      2  version
///          6      1  kind of frame
///          7      1  1: the tensors' layouts follow the header; 0: they are those of the last message of this kind
///          8      8  identity of the run
///         16      8  how many frames went before on this link
///         24     16  sending rank, receiving rank, tag's channel, tag's microbatch
///         40      1  tag's kind
///         41      3  0
///         44      4  number of tensors of the message
///         48      4  bytes of layouts in this frame
///         52      4  bytes of the message, or of a reason, in this frame
///         56      8  bytes of the whole message
///         64         layouts, then bytes
///
/// Layouts that do not fit the first frame go on in the next ones, each whole in one of them; the message's bytes begin
/// in the frame of the last layout. A layout is a byte of dtype and flags, one of dimensions and whether strides
/// follow, eight for each size and, where the strides are not those of a new tensor of these sizes, eight for each
/// stride. Of a tensor's elements come, one behind the other,
///   - in the order of its memory, all, where they fill it (`Spread::Dense`);
///   - in the order of its dimensions, all, where there are gaps between them, and nothing of the gaps;
///   - in the order of its memory, its whole span, where two of them may share a place; what is between them is 0;
/// and of a dimension of stride 0 only one, as it is the same all along.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/wire/strided.h"

namespace penstock {

inline constexpr std::size_t frame_header_bytes = 64;
inline constexpr std::size_t largest_frame_bytes = std::size_t{128} * 1024;
inline constexpr std::size_t most_tensors = 65'535;

/// What a frame is.
enum class FrameKind : std::uint8_t {
  Message,       ///< the first frame of a message
  Continuation,  ///< the next bytes of the message that the last frame left open
  Heartbeat,     ///< the sender lives
  Abort,         ///< the sender gives up; the bytes are its reason
  Lost,          ///< the sender gives up because a process is gone or silent; the bytes say which
  Goodbye,       ///< the sender is done and will send nothing more
};

/// The type of a tensor's elements on the way; the numbers are part of the format.
enum class WireDtype : std::uint8_t {
  Undefined,
  UInt8,
  Int8,
  Int16,
  Int32,
  Int64,
  Float16,
  Float32,
  Float64,
  Bool,
  BFloat16,
  Complex32,
  Complex64,
  Complex128,
  UInt16,
  UInt32,
  UInt64,
  Float8E5M2,
  Float8E4M3FN,
  Float8E5M2FNUZ,
  Float8E4M3FNUZ,
  Float8E8M0FNU,
  Float4E2M1FNX2  ///< two in a byte
};
inline constexpr WireDtype last_dtype = WireDtype::Float4E2M1FNX2;

/// 0 for an undefined tensor. `dtype` must be one of the above.
[[nodiscard]] std::size_t element_bytes(WireDtype dtype);
/// Whether autograd knows gradients of it.
[[nodiscard]] bool is_differentiable(WireDtype dtype);

/// How a tensor of a message lies in memory, and where its bytes come from.
struct TensorLayout {
  WireDtype dtype = WireDtype::Undefined;
  std::vector<std::int64_t> sizes;
  bool takes_gradient = false;             ///< the receiver is to send its gradient back
  bool on_device = false;                  ///< its bytes do not come in frames, but from device to device
  std::vector<std::int64_t> strides = {};  ///< in elements; empty: those of a new tensor of these sizes

  friend bool operator==(const TensorLayout&, const TensorLayout&) = default;
};

using Layouts = std::vector<TensorLayout>;

/// Of the tensors that are on a device, or of the others.
struct LayoutBytes {
  std::uint64_t in_transit = 0;  ///< of their elements, each place of memory once
  std::uint64_t in_memory = 0;   ///< from the first to the last of each
};

/// None where `in_memory`, the larger of the two, is above `most`.
[[nodiscard]] std::optional<LayoutBytes> bytes_of(const Layouts& layouts, bool on_device, std::uint64_t most);
/// Of those that come in frames, what comes. Of layouts that were read, or have been checked by the other one.
[[nodiscard]] std::uint64_t bytes_of(const Layouts& layouts);

/// Between which ranks a message goes, and its tag, which means nothing here.
struct FrameAddress {
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int32_t channel = 0;
  std::int32_t microbatch = 0;
  std::uint8_t tag_kind = 0;

  friend bool operator==(const FrameAddress&, const FrameAddress&) = default;
};

/// One frame as it is written and as it was read.
struct Frame {
  FrameKind kind = FrameKind::Heartbeat;
  FrameAddress address;
  bool with_layouts = false;        ///< of a message
  std::uint64_t message_bytes = 0;  ///< of the whole message
  std::size_t layouts_written = 0;  ///< in the frames before this one
};

/// What two processes have agreed to take from each other.
struct LinkTerms {
  std::uint64_t run_identity = 0;
  std::int32_t first_sender = 0;  ///< ranks of the sending process
  std::int32_t end_sender = 0;
  std::int32_t first_receiver = 0;  ///< ranks of the receiving one
  std::int32_t end_receiver = 0;
  bool on_device = false;                                          ///< tensors may come from device to device
  std::uint64_t largest_message_bytes = std::uint64_t{16} << 30U;  ///< nothing larger is made room for
};

/// Layouts are sent with the first message of a kind on a channel and where they have changed since.
class LayoutMemory {
 public:
  /// Whether `layouts` are those of the last message like this one; remembers them.
  bool same_as_last(const FrameAddress& address, const Layouts& layouts);
  /// Null where there has been none.
  [[nodiscard]] const Layouts* last(const FrameAddress& address) const;
  [[nodiscard]] std::size_t channels() const { return layouts_.size(); }
  /// About so many bytes of memory.
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  using Key = std::array<std::int32_t, 4>;
  static Key key_of(const FrameAddress& address) {
    return {address.from, address.to, address.tag_kind, address.channel};
  }
  std::map<Key, Layouts> layouts_;
  std::size_t bytes_ = 0;
};

/// Writes the frames of one link, one after the other.
class FrameWriter {
 public:
  explicit FrameWriter(std::uint64_t run_identity) : run_identity_(run_identity) {}

  /// Writes the header, and as many as fit of the layouts that are still to be written, to the start of `into`, and
  /// counts them in `frame`. Returns where the frame's own bytes begin: there is room for them up to
  /// `largest_frame_bytes`, but none may follow while `has_more_layouts`; `finish` says how many there are.
  /// \pre `layouts` are at most `most_tensors`, of at most `most_dimensions`.
  [[nodiscard]] std::size_t begin(Frame& frame, const Layouts& layouts, std::span<std::byte> into);
  /// Whether layouts of the message are still to be written, into its next frames.
  [[nodiscard]] static bool has_more_layouts(const Frame& frame, const Layouts& layouts) {
    return frame.with_layouts && frame.layouts_written < layouts.size();
  }
  /// Says in a frame's header that its own bytes are those from `begin` to `end`.
  static void finish(std::span<std::byte> frame, std::size_t begin, std::size_t end);

 private:
  std::uint64_t run_identity_;
  std::uint64_t sequence_ = 0;
};

/// What a frame brought.
struct Incoming {
  FrameKind kind = FrameKind::Heartbeat;
  FrameAddress address;
  const Layouts* layouts = nullptr;  ///< of the message, once all have come; valid until the next frame
  std::uint64_t offset = 0;          ///< of `bytes` in the message
  std::span<const std::byte> bytes;  ///< within the frame that was read
  bool first = false;                ///< of the message's frames, that with which all layouts have come
  bool last = false;                 ///< of the message
};

/// Reads the frames of one link. After an error it must not be used again.
class FrameReader {
 public:
  explicit FrameReader(const LinkTerms& terms) : terms_(terms) {}

  /// \param frame a buffer that begins with a frame and may go on behind it. \throws Error (RunFailed) that says what
  /// is wrong with it: nothing in it has then been believed.
  [[nodiscard]] Incoming read(std::span<const std::byte> frame);

 private:
  struct Open {
    FrameAddress address;
    std::size_t tensors = 0;
    Layouts layouts;     ///< as many as have come
    bool begun = false;  ///< all have
    std::uint64_t bytes = 0;
    std::uint64_t read = 0;
  };

  FrameKind check_header(std::span<const std::byte> frame);
  void open_message(const FrameAddress& address, std::span<const std::byte> frame);
  void read_layouts(std::span<const std::byte> layouts);
  /// With all layouts.
  void begin_message(bool with_layouts);
  Incoming take_bytes(Incoming incoming, bool may_have_none);

  LinkTerms terms_;
  std::uint64_t sequence_ = 0;
  LayoutMemory memory_;
  std::optional<Open> open_;
  Layouts layouts_;  ///< of the message that the last frame ended
};

}  // namespace penstock
