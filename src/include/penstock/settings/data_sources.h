/// \file
/// Several sources of data, each with its share of the samples: what `data` says of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock {

/// One of them.
struct DataSource {
  std::string path;         ///< a file or a folder
  std::int64_t weight = 0;  ///< its share, among the sum of all weights; 0 where nobody named any

  friend bool operator==(const DataSource&, const DataSource&) = default;
};

/// Reads the setting `data`: "a.bin:0.7" is a.bin with the weight 0.7, unless a file or folder has that whole name.
/// Weights are divided by what they have in common: 0.7 and 0.3 are 7 and 3.
/// \throws Error (BadInput) where only some have a weight, for weights below 0.000001, above 1000000 or with more than
/// six decimals, and for such as need more than 2³¹ equal parts together.
[[nodiscard]] std::vector<DataSource> data_sources(const std::vector<std::string>& data);

/// Whether they have weights.
[[nodiscard]] bool have_weights(const std::vector<DataSource>& sources);

/// Their paths alone.
[[nodiscard]] std::vector<std::string> paths_of(const std::vector<DataSource>& sources);

}  // namespace penstock
