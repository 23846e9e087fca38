// The one place that names a backend of c10d.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "penstock/transport/c10d.h"

namespace penstock {

// Whether this build of libtorch, and the headers beside it, have what `make_backend` needs.
[[nodiscard]] bool has_backend();

// Gloo, listening on `own_address`. \throws Error (BadInput) where libtorch has none, (RunFailed) where the processes
// cannot reach each other.
[[nodiscard]] c10::intrusive_ptr<c10d::Backend> make_backend(const ProcessSettings& settings,
                                                             const c10::intrusive_ptr<c10d::Store>& store);

}  // namespace penstock
