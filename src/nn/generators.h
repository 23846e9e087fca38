// Generators of our own, and the key on which they are handed to operations.
#pragma once

#include <cstdint>

#include <ATen/core/Generator.h>
#include <c10/core/DispatchKey.h>

namespace penstock {

// Among the keys that libtorch leaves to others, the one above every other that computes: it sees an operation before
// autograd, autocast and the devices do. Only threads within a `DrawScope` include it.
inline constexpr c10::DispatchKey draw_key = c10::DispatchKey::TESTING_ONLY_GenericMode;

[[nodiscard]] at::Generator generator_from(std::uint64_t key, at::Device device);

}  // namespace penstock
