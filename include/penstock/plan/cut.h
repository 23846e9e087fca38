/// \file
/// The cut: where a list of layers is divided into stages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock {

/// For each stage the index of its first layer: strictly ascending, the first is 0.
using Cut = std::vector<std::int64_t>;

/// Stages of as equal numbers of layers as possible. \throws Error (BadInput) for more stages than layers.
[[nodiscard]] Cut uniform_cut(std::int64_t layers, int stages);

/// The cut whose heaviest stage is lightest; of equal ones, the cut whose first stages are shortest. Exact, by dynamic
/// programming. \param weights of the layers, not negative. \throws Error (BadInput) for more stages than layers.
[[nodiscard]] Cut balanced_cut(const std::vector<std::int64_t>& weights, int stages);

/// Reads "3,6,9": the first layers of the second and later stages. \throws Error (BadInput) if it is not a list of
/// ascending layer numbers that makes `stages` stages.
[[nodiscard]] Cut parse_cut(const std::string& text, std::int64_t layers, int stages);

/// The form that `parse_cut` reads, "3,6,9"; "uniform" for a single stage, which has no later one.
[[nodiscard]] std::string to_text(const Cut& cut);

}  // namespace penstock
