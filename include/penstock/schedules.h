/// \file
/// The half of penstock that needs no libtorch: schedules as values, their proof, costs, simulation, plans, drawings.
/// Link `penstock::report`, which brings the other rooms of this half. docs/schedules.md and docs/planning.md lead
/// through it.
///
///     const auto schedule = penstock::verify(penstock::make_schedule("zb-v", /*ranks=*/4, /*microbatches=*/8));
///     const penstock::StageCost stage{.forward = {1}, .input_backward = {1}, .weight_backward = {1}};
///     std::cout << penstock::to_grid(penstock::simulate(schedule, penstock::uniform_cost(8, stage)));
#pragma once

#include "penstock/base/error.h"
#include "penstock/cost/cost.h"
#include "penstock/plan/plan.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/simulate.h"
#include "penstock/synthesis/synthesise.h"
#include "penstock/timeline/timeline.h"
