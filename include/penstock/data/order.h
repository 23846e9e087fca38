/// \file
/// In which order samples come. The order depends on (seed, step) alone, so a run that is resumed at a step sees what
/// it would have seen, and nothing about the order needs to be in a checkpoint.
#pragma once

#include <cstdint>
#include <vector>

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

/// Samples for an evaluation: `count` different ones, ascending and as far apart as they can be, always the same.
/// Where the dataset has fewer than `count`, all of it: the result may be shorter than `count`, never empty.
/// \param size number of samples in the dataset, at least 1.
/// \param count at least 1.
/// \throws InvariantViolation where a parameter is out of its range.
[[nodiscard]] std::vector<std::int64_t> evenly_spaced_samples(std::int64_t size, std::int64_t count);

}  // namespace penstock
