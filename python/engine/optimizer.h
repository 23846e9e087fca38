// An optimizer of torch.optim in the place of penstock's.
#pragma once

#include <memory>

#include "penstock/optim/optimizer.h"

#include "engine/held.h"

namespace penstock::python {

// `make` is a Python callable from the names and the parameters of a rank to an object with `update()`, `state()`, a
// list of names and tensors, and `resume(state, updates)`: penstock.engine has one.
[[nodiscard]] MakeOptimizer optimizer_from(Held make, std::shared_ptr<Crossing> crossing);

}  // namespace penstock::python
