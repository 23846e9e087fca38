/// \file
/// The half of penstock that needs no libtorch: schedules as values, their proof, costs, simulation, plans, drawings.
/// Link `penstock::report`, which brings the other rooms of this half. docs/schedules.md and docs/planning.md lead
/// through it.
#pragma once

#include "penstock/base/error.h"
#include "penstock/cost/cost.h"
#include "penstock/cost/layer_cost.h"
#include "penstock/plan/plan.h"
#include "penstock/plan/plan_file.h"
#include "penstock/report/grid.h"
#include "penstock/report/html.h"
#include "penstock/report/plan_report.h"
#include "penstock/report/trace.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/lower.h"
#include "penstock/schedule/replicas.h"
#include "penstock/schedule/schedule.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/simulate.h"
#include "penstock/synthesis/synthesise.h"
#include "penstock/timeline/timeline.h"
