/// \file
/// The small types that all rooms share: times and sizes with their units, numbers of stages, ranks and microbatches,
/// the clock and the calendar, and kinds that are chosen by a word. Each is a type of its own, so that a size cannot be
/// passed where a time is meant, nor a rank where a stage is.
///
///     const penstock::Bytes limit{12LL << 30};                  // to_string(limit) is "12 GiB"
///     busy[penstock::RankId{3}.index()] += penstock::Milliseconds{1.5};
///     penstock::Worded<penstock::OptimizerKind> kind = "sgd";   // throws an Error that lists the words for any other
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/base/error.h"

namespace penstock {

/// A duration, or a point in time since the start of what is being timed.
struct Milliseconds {
  double count = 0;

  friend auto operator<=>(const Milliseconds&, const Milliseconds&) = default;
  friend Milliseconds operator+(Milliseconds a, Milliseconds b) { return {a.count + b.count}; }
  friend Milliseconds operator-(Milliseconds a, Milliseconds b) { return {a.count - b.count}; }
  friend Milliseconds operator*(Milliseconds a, double factor) { return {a.count * factor}; }
  Milliseconds& operator+=(Milliseconds other) {
    count += other.count;
    return *this;
  }
};

/// A size in memory or on a link.
struct Bytes {
  std::int64_t count = 0;

  friend auto operator<=>(const Bytes&, const Bytes&) = default;
  friend Bytes operator+(Bytes a, Bytes b) { return {a.count + b.count}; }
  friend Bytes operator-(Bytes a, Bytes b) { return {a.count - b.count}; }
  Bytes& operator+=(Bytes other) {
    count += other.count;
    return *this;
  }
};

/// "1.5 GiB", "312 KiB", "7 B": binary multiples, at most three significant figures.
[[nodiscard]] std::string to_string(Bytes bytes);

/// "12.3 ms", "4.56 s", "1 h 02 min": at most three significant figures below a minute.
[[nodiscard]] std::string to_string(Milliseconds duration);

/// A number that counts one kind of thing from 0. `Tag` makes the kinds different types.
template <class Tag>
struct Id {
  std::int32_t value = 0;

  friend auto operator<=>(const Id&, const Id&) = default;

  /// The position in a container that has one element for each id.
  [[nodiscard]] constexpr std::size_t index() const { return static_cast<std::size_t>(value); }
};

/// A contiguous run of layers that lives on one device, numbered from the network's input.
using StageId = Id<struct StageTag>;
/// One executor: a device with a thread or a process.
using RankId = Id<struct RankTag>;
/// One of the slices of a minibatch, in the order in which gradients accumulate.
using MicrobatchId = Id<struct MicrobatchTag>;

/// Milliseconds since an arbitrary fixed point, never running backwards. Thread-safe.
class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  Clock(Clock&&) = delete;
  Clock& operator=(Clock&&) = delete;
  virtual ~Clock() = default;

  [[nodiscard]] virtual Milliseconds now() const = 0;
};

/// The machine's monotonic clock.
class SteadyClock final : public Clock {
 public:
  [[nodiscard]] Milliseconds now() const override;
};

/// A point of UTC, to the millisecond.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;

/// The present time by the machine's clock.
[[nodiscard]] WallTime wall_time_now();

/// "2026-11-29T09:30:58.123Z", as ISO 8601 has it.
[[nodiscard]] std::string to_string(WallTime time);

/// Reads what `to_string` writes, also without milliseconds. Nothing if the text is no such time.
[[nodiscard]] std::optional<WallTime> parse_wall_time(std::string_view text);

/// How the bytes of the data's files are read.
enum class DataKind {
  Text,      ///< Bytes are tokens 0 … 255.
  Tokens16,  ///< Flat little-endian uint16, one a token.
  Tokens32,  ///< Flat little-endian uint32, one a token.
  Images,    ///< A file of images and a file of labels in the IDX layout.
  Own,       ///< No files: a program brings its samples. It has no word.
};

/// How weights change.
enum class OptimizerKind : std::uint8_t {
  AdamW,  ///< arXiv 1711.05101
  Sgd,    ///< with momentum
};

/// In which number type layers compute. Weights, their gradients and the optimizer stay in float32 in all of them.
enum class Precision : std::uint8_t {
  Float32,
  BFloat16,  ///< libtorch's autocast: matrix products in bfloat16, what is sensitive in float32
  Float16,   ///< the same in float16, whose small range wants a scaled loss
};

/// In which type the float32 tensors of a boundary, activations and gradients, travel from rank to rank. Between two
/// stages of one rank nothing travels, and nothing is converted.
enum class BoundaryDtype : std::uint8_t {
  Same,      ///< as the layers returned them
  BFloat16,  ///< half the bytes; rounded to the nearest of 8 bits of precision, so that the numbers depend on the cut
};

/// A kind's word on the command line and in files.
template <class Kind>
struct KindWord {
  Kind kind;
  std::string_view word;
  bool offered = true;  ///< whether messages list it: some can only be read from a file that a program has written
};

/// All words of one enum, in the order in which messages list them: `KindWords<Precision>::all`.
template <class Kind>
struct KindWords;

/// The words of kinds of data.
template <>
struct KindWords<DataKind> {
  static constexpr std::array<KindWord<DataKind>, 4> all{{{DataKind::Text, "text"},
                                                          {DataKind::Tokens16, "tokens16"},
                                                          {DataKind::Tokens32, "tokens32"},
                                                          {DataKind::Images, "images"}}};
};

/// The words of optimizers.
template <>
struct KindWords<OptimizerKind> {
  static constexpr std::array<KindWord<OptimizerKind>, 2> all{
      {{OptimizerKind::AdamW, "adamw"}, {OptimizerKind::Sgd, "sgd"}}};
};

/// The words of precisions.
template <>
struct KindWords<Precision> {
  static constexpr std::array<KindWord<Precision>, 3> all{
      {{Precision::Float32, "fp32"}, {Precision::BFloat16, "bf16"}, {Precision::Float16, "fp16"}}};
};

/// The words of the types that boundaries travel in.
template <>
struct KindWords<BoundaryDtype> {
  static constexpr std::array<KindWord<BoundaryDtype>, 2> all{
      {{BoundaryDtype::Same, "same"}, {BoundaryDtype::BFloat16, "bf16"}}};
};

/// The error for a word that is not one of `words`.
[[nodiscard]] Error unknown_word(std::string_view word, const std::vector<std::string>& words);

/// An enum whose values have words.
template <class Kind>
concept HasWords = requires { KindWords<Kind>::all; };

/// The word of a kind; empty for one that has none.
template <HasWords Kind>
[[nodiscard]] std::string word_of(Kind kind) {
  const auto& all = KindWords<Kind>::all;
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& word) { return word.kind == kind; });
  return found == all.end() ? std::string() : std::string(found->word);
}

/// The kind of that word; nothing if there is none.
template <HasWords Kind>
[[nodiscard]] std::optional<Kind> kind_named(std::string_view word) {
  const auto& all = KindWords<Kind>::all;
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& known) { return known.word == word; });
  return found == all.end() ? std::nullopt : std::optional(found->kind);
}

/// The words that messages list.
template <HasWords Kind>
[[nodiscard]] std::vector<std::string> words_of() {
  std::vector<std::string> words;
  for (const auto& known : KindWords<Kind>::all)
    if (known.offered) words.emplace_back(known.word);
  return words;
}

/// A kind as a program may write it: `OptimizerKind::Sgd` or "sgd".
template <HasWords Kind>
class Worded {
 public:
  constexpr Worded(Kind kind) : kind_(kind) {}  // NOLINT(google-explicit-constructor,hicpp-explicit-conversions)
  /// \throws Error (BadInput) that lists the words if this is none of them.
  Worded(std::string_view word) {  // NOLINT(google-explicit-constructor,hicpp-explicit-conversions)
    const std::optional<Kind> kind = kind_named<Kind>(word);
    if (!kind) throw unknown_word(word, words_of<Kind>());
    kind_ = *kind;
  }
  Worded(const char* word)
      : Worded(std::string_view(word)) {}  // NOLINT(google-explicit-constructor,hicpp-explicit-conversions)
  Worded(const std::string& word)
      : Worded(std::string_view(word)) {}  // NOLINT(google-explicit-constructor,hicpp-explicit-conversions)

  constexpr operator Kind() const { return kind_; }  // NOLINT(google-explicit-constructor,hicpp-explicit-conversions)

  friend constexpr bool operator==(const Worded&, const Worded&) = default;
  friend constexpr bool operator==(const Worded& worded, Kind kind) { return worded.kind_ == kind; }

 private:
  Kind kind_{};
};

}  // namespace penstock

template <class Tag>
struct std::hash<penstock::Id<Tag>> {
  std::size_t operator()(penstock::Id<Tag> id) const noexcept { return std::hash<std::int32_t>{}(id.value); }
};
