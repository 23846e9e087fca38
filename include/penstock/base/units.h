/// \file
/// Quantities with their units as types: times in milliseconds, sizes in bytes.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

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

}  // namespace penstock
