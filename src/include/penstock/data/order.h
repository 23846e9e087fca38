/// \file
/// In which order samples come. The order depends on (seed, step) alone, so a run that is resumed at a step sees what
/// it would have seen, and nothing about the order needs to be in a checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "penstock/base/random.h"

namespace penstock {

/// The samples of one training step: the places step × batch … (step + 1) × batch − 1 of an endless sequence in which
/// each epoch of `size` samples is a permutation of its own, so within an epoch none comes twice. A step may reach over
/// the end of an epoch.
/// \param size number of samples in the dataset, at least 1.
/// \param step at least 0.
/// \param batch samples a step, at least 1; may exceed `size`.
/// \throws InvariantViolation where a parameter is out of its range.
[[nodiscard]] std::vector<std::int64_t> samples_of_step(std::int64_t size, std::int64_t step, std::int64_t batch,
                                                        std::uint64_t seed);

/// One of several sources that samples come from.
struct SourceShare {
  std::int64_t size = 0;    ///< samples that it has, at least 1
  std::int64_t weight = 1;  ///< its share of a sequence, among the sum of all weights, at most 2³¹; at least 1

  friend bool operator==(const SourceShare&, const SourceShare&) = default;
};

/// How many of the first `count` samples of a mixture come from each source: less than one more or fewer than its share
/// of `count` (the quota method of Balinski and Young, 1975).
/// \throws InvariantViolation where a parameter is out of its range.
[[nodiscard]] std::vector<std::int64_t> counts_of_first(const std::vector<SourceShare>& sources, std::int64_t count);

/// The endless sequence of samples from several sources, in which each has its share of every beginning, as
/// `counts_of_first` says, and has epochs of its own: it is passed through again and again, each time as a permutation
/// of its own, whatever the others do. Samples are numbered through, those of the first source first. The sequence of
/// one source is that of `samples_of_step`. Remembers where it is, so that the next step costs no more than its
/// samples.
class SampleOrder {
 public:
  /// \param sources at least one. \throws InvariantViolation where one is out of its range.
  SampleOrder(std::vector<SourceShare> sources, std::uint64_t seed);

  /// The places step × batch … (step + 1) × batch − 1.
  [[nodiscard]] std::vector<std::int64_t> of_step(std::int64_t step, std::int64_t batch);

 private:
  // The order of one source's epoch.
  using Epoch = std::pair<std::uint64_t, Permutation>;

  void go_to(std::int64_t position);
  std::size_t next_source();
  [[nodiscard]] std::int64_t sample_of(std::size_t source);
  friend std::vector<std::int64_t> counts_of_first(const std::vector<SourceShare>& sources, std::int64_t count);

  std::vector<SourceShare> sources_;
  std::uint64_t seed_;
  std::int64_t period_ = 0;                   // after which each has had its weight
  std::int64_t position_ = 0;                 // in the sequence
  std::vector<std::int64_t> taken_;           // of each source, before the position
  std::vector<std::optional<Epoch>> epochs_;  // by source, the present one
};

/// Samples for an evaluation: `count` different ones, ascending and as far apart as they can be, always the same.
/// Where the dataset has fewer than `count`, all of it: the result may be shorter than `count`, never empty.
/// \param size number of samples in the dataset, at least 1.
/// \param count at least 1.
/// \throws InvariantViolation where a parameter is out of its range.
[[nodiscard]] std::vector<std::int64_t> evenly_spaced_samples(std::int64_t size, std::int64_t count);

/// The same from several sources, whose samples are numbered through: from each as many as `counts_of_first` says, or
/// all that it has.
[[nodiscard]] std::vector<std::int64_t> evenly_spaced_samples(const std::vector<SourceShare>& sources,
                                                              std::int64_t count);

}  // namespace penstock
