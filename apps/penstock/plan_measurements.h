// What `penstock plan` measures: the layers of a network that is named as for `penstock train`, and plans that are
// tried.
#pragma once

#include "schedule_commands.h"

namespace penstock::app {

[[nodiscard]] PlanMeasurements plan_measurements();

}  // namespace penstock::app
