// A pipeline that several processes share, each started with the same script.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "penstock/checkpoint/checkpoint.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/transport/c10d.h"

#include "engine/held.h"

namespace penstock::python {

// This process's part, and what all must have been given alike, a line each.
struct SharedPipeline {
  ProcessSettings part;
  std::string description;
};

// What the environment says of this process, or nothing where it was started alone. `number` counts the pipelines that
// the script has made, in every process alike: each meets under a name of its own.
[[nodiscard]] std::optional<ProcessSettings> part_of_environment(int number);

// Meets the others. `devices` are those of the ranks in turn. Throws Error (BadInput) where the processes were given
// different things.
[[nodiscard]] std::unique_ptr<ProcessGroup> join(SharedPipeline shared, int ranks,
                                                 const std::vector<at::Device>& devices,
                                                 const std::shared_ptr<Crossing>& crossing);

// Every process writes its stages; whole, and seen by all, when it returns.
void save_together(Pipeline& pipeline, const ProcessGroup& group, const std::string& folder, std::int64_t step,
                   const std::string& metadata);

// What the first process has found, or its words for why it has not, in every process.
struct FoundCheckpoint {
  CheckpointId id;
  std::string refusal;  // empty where there is one
};
[[nodiscard]] FoundCheckpoint tell_all(Pipeline& pipeline, const FoundCheckpoint& of_first);

}  // namespace penstock::python
