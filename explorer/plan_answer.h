/// \file
/// A plan file as a pipeline that can be played.
#pragma once

#include "request.h"

namespace penstock::explorer {

/// The pipeline of the request's `plan`, with `plan_schedule`, the file beside it where it needs one. Its costs are
/// those of `layers`, where the request has the costs that it was made from; else each stage takes what the plan says,
/// a third of it forward. \throws Error (BadInput)
[[nodiscard]] Json answer_to_plan(const Json& request);

}  // namespace penstock::explorer
