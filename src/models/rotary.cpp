#include "models/rotary.h"

#include <numbers>

#include <ATen/ATen.h>

namespace penstock {
namespace {

// The frequency of each pair of features, in radians a position. In float32 throughout: thousands of positions on,
// another rounding would be another angle than the published models were trained with.
at::Tensor frequencies(const RotarySettings& settings, std::int64_t head_size, at::Device device) {
  const at::Tensor places = at::arange(0, head_size, 2, at::TensorOptions(at::kFloat).device(device));
  at::Tensor plain = at::reciprocal(at::pow(settings.base, places / static_cast<double>(head_size)));
  if (settings.scaling == RotaryScaling::None) return plain;
  at::Tensor slowed = plain / settings.factor;
  if (settings.scaling == RotaryScaling::Linear) return slowed;
  const auto positions = static_cast<double>(settings.original_positions);
  const at::Tensor wavelengths = 2 * std::numbers::pi / plain;
  const at::Tensor blend = (positions / wavelengths - settings.low_frequency_factor) /
                           (settings.high_frequency_factor - settings.low_frequency_factor);
  const at::Tensor blended = (1 - blend) * plain / settings.factor + blend * plain;
  const at::Tensor is_low = wavelengths > positions / settings.low_frequency_factor;
  const at::Tensor is_high = wavelengths < positions / settings.high_frequency_factor;
  return at::where(is_low, slowed, at::where(is_high, plain, blended));
}

// A pair is feature i and feature i + half.
at::Tensor turned(const at::Tensor& features, const at::Tensor& cosines, const at::Tensor& sines) {
  const std::vector<at::Tensor> halves = features.chunk(2, -1);
  return features * cosines + at::cat({-halves[1], halves[0]}, -1) * sines;
}

}  // namespace

void Rotary::make_tables(std::int64_t length, const at::Tensor& like) {
  const bool there = cosines_.defined() && cosines_.size(0) >= length && cosines_.device() == like.device() &&
                     cosines_.scalar_type() == like.scalar_type();
  if (there) return;
  const at::Tensor rates = frequencies(settings_, head_size_, like.device());
  const at::Tensor angles = at::outer(at::arange(length, rates.options()), rates);
  const at::Tensor both = at::cat({angles, angles}, -1);
  cosines_ = both.cos().to(like.scalar_type());
  sines_ = both.sin().to(like.scalar_type());
}

std::pair<at::Tensor, at::Tensor> Rotary::rotate(const at::Tensor& queries, const at::Tensor& keys,
                                                 std::int64_t first) {
  const std::int64_t length = queries.size(2);
  make_tables(first + length, queries);
  const at::Tensor cosines = cosines_.narrow(0, first, length);
  const at::Tensor sines = sines_.narrow(0, first, length);
  return {turned(queries, cosines, sines), turned(keys, cosines, sines)};
}

std::pair<at::Tensor, at::Tensor> Rotary::rotate(const at::Tensor& queries, const at::Tensor& keys,
                                                 const at::Tensor& positions) {
  make_tables(positions.size(1), queries);
  const auto at_positions = [&](const at::Tensor& table) { return at::embedding(table, positions).unsqueeze(1); };
  const at::Tensor cosines = at_positions(cosines_);
  const at::Tensor sines = at_positions(sines_);
  return {turned(queries, cosines, sines), turned(keys, cosines, sines)};
}

}  // namespace penstock
