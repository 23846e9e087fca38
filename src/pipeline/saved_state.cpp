#include "pipeline/saved_state.h"

#include <fmt/format.h>
#include <map>
#include <mutex>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/exec/memory.h"

namespace penstock {
namespace {

// What a checkpoint keeps of the stages whose first holder this rank is, and its shards of others: the tensors
// themselves, not copies.
std::vector<SavedStage> state_of(const Worker& worker, bool sharded) {
  std::vector<SavedStage> stages;
  for (const auto& [stage, tensors] : worker.state()) {
    const bool first_holder = worker.is_first_holder_of(stage);
    if (!first_holder && !sharded) continue;
    SavedStage saved{stage, {}, worker.place_among_holders(stage)};
    saved.tensors.reserve(tensors.size());
    for (const auto& [name, tensor] : tensors)
      if (first_holder || name.starts_with(optimizer_prefix)) saved.tensors.push_back({name, tensor.detach()});
    if (first_holder && stage == StageId{0} && worker.loss_scale_state().defined())
      saved.tensors.push_back({loss_scale_name, worker.loss_scale_state()});
    if (!saved.tensors.empty()) stages.push_back(std::move(saved));
  }
  return stages;
}

// Tensors in the host's memory that `from` can be copied into; those that are there and fit are kept.
void make_room(const SavedStage& from, SavedStage& to) {
  to.stage = from.stage;
  to.shard = from.shard;
  to.tensors.resize(from.tensors.size());
  for (std::size_t index = 0; index < from.tensors.size(); ++index) {
    const at::Tensor& wanted = from.tensors[index].tensor;
    NamedTensor& copy = to.tensors[index];
    copy.name = from.tensors[index].name;
    if (!copy.tensor.defined() || copy.tensor.sizes() != wanted.sizes() ||
        copy.tensor.scalar_type() != wanted.scalar_type())
      copy.tensor = at::empty(wanted.sizes(), wanted.options().device(at::kCPU));
  }
}

}  // namespace

void save_state(RankTeam& team, CheckpointPart& part) {
  team.run([&](RankId rank) {
    for (const SavedStage& saved : state_of(team.worker(rank), team.plan().settings.shard_optimizer))
      part.write_stage(saved.stage, saved.tensors, saved.shard);
  });
}

void copy_state(RankTeam& team, std::vector<SavedStage>& copies) {
  // Made here and not on the ranks' threads, whose memory is counted.
  std::vector<std::vector<SavedStage>> by_rank(team.size());
  std::vector<std::size_t> first(team.size());
  std::size_t stages = 0;
  for (std::size_t own = 0; own < team.size(); ++own) {
    by_rank[own] = state_of(team.worker({static_cast<std::int32_t>(team.first().index() + own)}),
                            team.plan().settings.shard_optimizer);
    first[own] = stages;
    stages += by_rank[own].size();
  }
  copies.resize(stages);
  for (std::size_t own = 0; own < team.size(); ++own)
    for (std::size_t index = 0; index < by_rank[own].size(); ++index)
      make_room(by_rank[own][index], copies[first[own] + index]);
  team.run([&](RankId rank) {
    const std::size_t own = team.local(rank);
    for (std::size_t index = 0; index < by_rank[own].size(); ++index) {
      const SavedStage& from = by_rank[own][index];
      for (std::size_t tensor = 0; tensor < from.tensors.size(); ++tensor)
        copies[first[own] + index].tensors[tensor].tensor.copy_(from.tensors[tensor].tensor);
    }
  });
}

void load_state(RankTeam& team, const CheckpointReader& reader, std::int64_t updates, bool with_optimizer) {
  team.run([&](RankId rank) {
    const at::NoGradGuard no_graph;
    Worker& worker = team.worker(rank);
    std::vector<Worker::NamedTensorView> counts;
    const bool outside = worker.updates_outside();
    for (const auto& [stage, tensors] : with_optimizer && !outside ? worker.state() : worker.weights()) {
      for (const auto& [own_name, tensor] : tensors) {
        // A parameter of several names has its optimizer's state under the first only.
        const std::string owner_name = worker.name_to_load(own_name);
        const std::string& name = reader.contains(owner_name) ? owner_name : own_name;
        if (is_update_count(name)) {
          if (!reader.contains(name)) continue;
          counts.emplace_back(own_name, tensor);
        }
        const at::Tensor saved = reader.contains(name) ? reader.read(name) : at::Tensor();
        if (!saved.defined() || saved.sizes() != tensor.sizes() || saved.scalar_type() != tensor.scalar_type())
          throw bad_input(
              fmt::format("the checkpoint holds {} as {}", name,
                          saved.defined() ? fmt::format("a tensor of {} elements", saved.numel()) : "nothing"),
              fmt::format("{} elements in the same shape", tensor.numel()),
              "resume with the model's own settings, or start in another folder");
        tensor.detach().copy_(saved);
      }
    }
    const bool scaled = with_optimizer && reader.contains(loss_scale_name);
    worker.resume(updates, scaled ? reader.read(loss_scale_name) : at::Tensor(), counts);
    if (with_optimizer && outside) worker.resume_outside(updates, reader);
  });
}

std::vector<std::pair<std::string, at::Tensor>> copied_weights(RankTeam& team) {
  std::map<StageId, std::vector<std::pair<std::string, at::Tensor>>> by_stage;
  std::mutex mutex;
  team.run([&](RankId rank) {
    const UncountedMemory uncounted;
    for (const auto& [stage, tensors] : team.worker(rank).weights()) {
      std::vector<std::pair<std::string, at::Tensor>> copies;
      for (const auto& [name, tensor] : tensors) copies.emplace_back(name, tensor.detach().to(at::kCPU, false, true));
      const std::scoped_lock lock(mutex);
      by_stage[stage] = std::move(copies);
    }
  });
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (auto& [stage, tensors] : by_stage) all.insert(all.end(), tensors.begin(), tensors.end());
  return all;
}

}  // namespace penstock
