#include "penstock/settings/data_sources.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <iterator>
#include <locale>
#include <numeric>
#include <optional>
#include <sstream>
#include <system_error>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr double parts_of_one = 1e6;
constexpr double most_weight = 1e6;
// So that what is multiplied with them stays within 64 bits.
constexpr std::int64_t most_together = std::int64_t{1} << 31;

std::optional<double> weight_in(const std::string& text, std::size_t colon) {
  const std::string digits = text.substr(colon + 1);
  if (digits.empty() || digits.find_first_not_of("-.0123456789") != std::string::npos) return std::nullopt;
  // Not std::from_chars, which Emscripten's library has for whole numbers only (the explorer has this room too).
  std::istringstream in(digits);
  in.imbue(std::locale::classic());
  double weight = 0;
  in >> weight;
  if (in.fail() || in.peek() != std::istringstream::traits_type::eof()) return std::nullopt;
  return weight;
}

std::int64_t in_parts(const std::string& text, double weight) {
  const double parts = weight * parts_of_one;
  if (!(weight <= most_weight) || !(parts >= 1) || std::abs(parts - std::round(parts)) > 1e-4)
    throw bad_input(fmt::format("the weight of `data` \"{}\"", shortened(text)),
                    "a number from 0.000001 to 1000000 with at most six decimals", "change the weight");
  return std::llround(parts);
}

DataSource source_of(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::error_code unknown;
  if (colon == std::string::npos || colon == 0 || std::filesystem::exists(text, unknown)) return {text};
  const auto weight = weight_in(text, colon);
  return weight ? DataSource{text.substr(0, colon), in_parts(text, *weight)} : DataSource{text};
}

}  // namespace

std::vector<DataSource> data_sources(const std::vector<std::string>& data) {
  std::vector<DataSource> sources;
  std::transform(data.begin(), data.end(), std::back_inserter(sources), source_of);
  if (!have_weights(sources)) return sources;
  std::int64_t common = 0;
  for (const DataSource& source : sources) {
    if (source.weight == 0)
      throw bad_input(
          fmt::format("`data` \"{}\" without a weight, beside others that have one", shortened(source.path)),
          "a weight for each, as in books.txt:0.7, or for none", "add it, or drop the others");
    common = std::gcd(common, source.weight);
  }
  std::int64_t together = 0;
  for (DataSource& source : sources) together += source.weight /= common;
  if (together > most_together)
    throw bad_input(fmt::format("weights of `data` that come together to {} of the smallest part of each", together),
                    fmt::format("at most {}", most_together), "give them fewer digits");
  return sources;
}

bool have_weights(const std::vector<DataSource>& sources) {
  return std::any_of(sources.begin(), sources.end(), [](const DataSource& source) { return source.weight > 0; });
}

std::vector<std::string> paths_of(const std::vector<DataSource>& sources) {
  std::vector<std::string> paths;
  std::transform(sources.begin(), sources.end(), std::back_inserter(paths),
                 [](const DataSource& source) { return source.path; });
  return paths;
}

}  // namespace penstock
