/// \file
/// What the explorer's page asks and what it is answered: one function from JSON to JSON over the rooms above it, so
/// that the page computes nothing of pipelines itself and shows what the command line prints.
///
/// A request is an object with `ask`. Of a pipeline it names
/// - the schedule: `schedule`, `ranks`, `microbatches` and, where the family leaves it open, `stages_per_rank`; or
/// `csv`
///   in the text form;
/// - the cost: `share`, a stage of a cost file for one rank's share of the network, which the rank's stages divide,
///   with `link` and `memory_cap_bytes`. With `batch`, `share` is of one sample, and a microbatch takes as long as its
///   samples and `fixed_samples` more. Or `cost`, the text of a cost file of stages; or `layers`, that of one of
///   layers, with `batch`.
///
/// | `ask` | answer |
/// |---|---|
/// | `families` | `families`: the published schedules, with what they allow |
/// | `play` | `answer`, as `penstock simulate --json`; `figures`, as its text prints them; `formula`, `command`, `cost`
/// | | `compare` | `schedules`: for each family `answer` and `figures`, best first; `refused` | | `sweep` | `points`:
/// the step of `schedules` over numbers of microbatches that divide `batch`; `sentence` | | `synthesise` | as `play`,
/// with `csv` and `found`; `placement`, `evaluations`, and `memory_cap` in activations | | `verify` | `correct`; where
/// not, `message`, `details`, and `cells`, the text of every cell of `csv` | | `plan` | of `plan`, a plan file:
/// `batch`, `microbatches`, `schedule`, `csv`, `cost`, `prediction`, `notes` | | `measured` | of `trace`, a run's
/// timeline.json: `measured` and `predicted` as `play`, and `comparison`, a text |
///
/// `timeline` of an answer has `ranks`, for each rank start, end, kind (0 to 3 for F, B, I, W), stage, microbatch and
/// whether it overlaps the next, one after the other; and `memory`, for each rank time and bytes alike.
#pragma once

#include <string>
#include <string_view>

namespace penstock::explorer {

/// Answers a request. A request that cannot be answered has `error`, the one line that the command line would print,
/// and `details`, the whole message. Equal requests get equal answers. Throws nothing but `std::bad_alloc`.
[[nodiscard]] std::string explore(std::string_view request);

}  // namespace penstock::explorer
