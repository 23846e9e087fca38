// What a checkpoint keeps of a team's stages: written, copied, read back.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/pipeline/pipeline.h"

#include "pipeline/rank_team.h"

namespace penstock {

// As the functions of `Pipeline` with these names; each tensor is read and written on the thread of its rank.
void save_state(RankTeam& team, CheckpointPart& part);
void copy_state(RankTeam& team, std::vector<SavedStage>& copies);
void load_state(RankTeam& team, const CheckpointReader& reader, std::int64_t updates, bool with_optimizer);
[[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> copied_weights(RankTeam& team);

}  // namespace penstock
