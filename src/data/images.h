/// \file
/// Images and labels in the IDX layout (that of MNIST): a big-endian header of the magic number and the sizes, then
/// bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "penstock/data/dataset.h"

namespace penstock {

/// Whether the file begins like an IDX file of bytes in one, three or four dimensions. False where it cannot be read.
[[nodiscard]] bool looks_like_idx(const std::filesystem::path& file);

/// Opens a file of images and a file of labels, given in either order.
/// \throws Error (BadInput) that names the file and the bytes it should have.
[[nodiscard]] Data open_images(std::span<const std::filesystem::path> files, double held_out);

}  // namespace penstock
