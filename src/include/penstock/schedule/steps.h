/// \file
/// Training steps one after the other. A rank begins its next step as soon as it has done its part of one, so that the
/// ends of schedules fit into each other: what the zero-bubble schedules are made for (arXiv 2401.10241, section 4).
#pragma once

#include "penstock/schedule/verify.h"

namespace penstock {

/// So many steps of a schedule as one schedule: every rank does its actions again, with the microbatches of step k
/// numbered behind those of the steps before. \param steps at least 1. \throws Error (BadInput) for fewer, and for more
/// microbatches in all than a schedule may have.
[[nodiscard]] Schedule in_a_row(const Schedule& step, int steps);

}  // namespace penstock
