/// \file
/// What the page is answered: a step in figures, as the command line prints them, and its events to be drawn.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "penstock/report/answers.h"
#include "penstock/timeline/timeline.h"

#include "request.h"

namespace penstock::explorer {

/// The figures in the words of `penstock simulate`, to the character; `peak_memory` is left out where nothing has a
/// size.
[[nodiscard]] Json figures_of(const SimulationAnswer& answer);

/// The events and the memory as flat lists of numbers: trees of JSON values for thousands of events take longer than
/// the simulation.
[[nodiscard]] std::string timeline_json(const Timeline& timeline);

/// The text of an object with one more member, whose value is JSON already.
[[nodiscard]] std::string with_member(const Json& object, const char* key, const std::string& json);

/// The command that prints the same figures; its costs stand in a file where options cannot say them.
[[nodiscard]] std::string command_of(const PipelineRequest& pipeline);

/// `penstock simulate --json` as a value.
[[nodiscard]] Json answer_of(const SimulationAnswer& answer);

/// The pipeline, played, and all that is said of it.
[[nodiscard]] Json answer_to_play(const PipelineRequest& pipeline, const Timeline& timeline);

}  // namespace penstock::explorer
