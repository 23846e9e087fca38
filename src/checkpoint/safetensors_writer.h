/// \file
/// Writing a safetensors file while its checksum is taken from the memory that it comes from, so that what the disk
/// makes of it can be held against it.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "penstock/checkpoint/safetensors.h"

#include "checkpoint/checksum.h"

namespace penstock {

/// write_safetensors, telling what was written.
FileSum write_summed_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                                 const std::map<std::string, std::string>& metadata);

}  // namespace penstock
