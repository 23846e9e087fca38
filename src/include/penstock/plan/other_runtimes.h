/// \file
/// A plan in the words of other runtimes. What they call a layer is told by its place: the first layer of the costs is
/// the embedding, the last the head with the loss, and those between are the transformer's.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/plan/plan.h"

namespace penstock {

/// Arguments of Megatron-LM's training programs, one or more a line: `--pipeline-model-parallel-layout`, whose letters
/// are E, t and L with | between stages, and the sizes that belong to it (megatron/core/transformer,
/// pipeline_parallel_layer_layout.py). \throws Error (BadInput) for what Megatron does not run: other schedules than
/// 1f1b and interleaved-1f1b, replicas, microbatches of several sizes, recomputation of some stages only, ties of other
/// layers than the first and the last, fewer than two layers.
[[nodiscard]] std::string to_megatron(const Plan& plan);

/// Tables of a torchtitan configuration: the degree, the schedule as the file `schedule_file`, which holds
/// `to_csv(schedule_of(plan))`, `module_fqns_per_model_part`, and the sizes that belong to it
/// (torchtitan/distributed/pipeline_parallel.py). \param layer_names the costs', of as many layers as the plan's, or
/// empty. Where one of them is tok_embeddings or begins with "layers.", they are modules of the model, with + between
/// several of one layer, and are taken as they are; otherwise a layer's place says which module it is.
/// \throws Error (BadInput) for what torchtitan does not run: schedules whose stages are neither a loop nor a V, ties,
/// replicas, microbatches of several sizes, recomputation of some stages only.
[[nodiscard]] std::string to_torchtitan(const Plan& plan, const std::vector<std::string>& layer_names,
                                        std::string_view schedule_file);

/// Writes torchtitan.toml, those tables, and schedule.csv, which it names, into `folder`, which is made.
/// \throws Error as `to_torchtitan`, before anything is written; (RunFailed) where the folder cannot be written.
void save_for_torchtitan(const Plan& plan, const std::vector<std::string>& layer_names,
                         const std::filesystem::path& folder);

}  // namespace penstock
