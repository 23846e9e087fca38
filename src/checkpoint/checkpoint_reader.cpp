#include <fmt/format.h>
#include <set>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/read_only_file.h"
#include "penstock/checkpoint/checkpoint.h"

#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_index.h"
#include "checkpoint/checksum.h"
#include "checkpoint/json_events.h"

namespace penstock {
namespace {

/// The index of a checkpoint that is complete by name, index and file sizes.
CheckpointIndex checked_index(const CheckpointId& id) {
  CheckpointIndex index = read_index(id.path);
  if (index.step != id.step)
    throw bad_input(fmt::format("{}: the index of step {}", id.path.string(), index.step),
                    fmt::format("step {}", id.step), "the folder was renamed: give it its name back");
  return index;
}

void check_content(const std::filesystem::path& path, const FileSum& sum) {
  const std::string checksum = checksum_of(ReadOnlyFile(path));
  if (checksum != sum.checksum)
    throw bad_input(fmt::format("{}: xxh64 {}", path.string(), checksum), fmt::format("xxh64 {}", sum.checksum),
                    "the file is damaged: use an earlier checkpoint");
}

}  // namespace

struct CheckpointReader::State {
  CheckpointIndex index;
  std::map<std::string, SafetensorsFile> files;
};

CheckpointReader::CheckpointReader(const CheckpointId& id) {
  State state;
  state.index = checked_index(id);
  std::size_t held = 0;
  for (const auto& [name, sum] : state.index.files) {
    const auto path = id.path / name;
    check_content(path, sum);
    held += state.files.emplace(name, SafetensorsFile::open(path)).first->second.names().size();
  }
  for (const auto& [name, file] : state.index.tensors)
    if (!state.files.at(file).contains(name))
      throw bad_input(fmt::format("{}: no tensor {}", (id.path / file).string(), in_quotes(name)),
                      "the tensors that the index names", "use an earlier checkpoint");
  if (held != state.index.tensors.size())
    throw bad_input(fmt::format("{}: {} tensors in its files", id.path.string(), held),
                    fmt::format("{}, as the index names", state.index.tensors.size()), "use an earlier checkpoint");
  state_ = std::make_unique<const State>(std::move(state));
}

CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader& CheckpointReader::operator=(CheckpointReader&&) noexcept = default;
CheckpointReader::~CheckpointReader() = default;

std::int64_t CheckpointReader::step() const { return state_->index.step; }

const std::string& CheckpointReader::metadata() const { return state_->index.metadata; }

bool CheckpointReader::contains(std::string_view name) const { return state_->index.tensors.contains(name); }

at::Tensor CheckpointReader::read(std::string_view name) const {
  const auto found = state_->index.tensors.find(name);
  if (found == state_->index.tensors.end())
    throw bad_input(fmt::format("the checkpoint of step {} has no tensor {}", step(), in_quotes(name)),
                    "a tensor of the network that was saved", "resume with the settings that the run was started with");
  return state_->files.at(found->second).read(name);
}

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : state_->index.tensors) names.push_back(name);
  return names;
}

std::vector<CheckpointId> whole_checkpoints(const std::filesystem::path& folder) {
  std::vector<CheckpointId> whole;
  for (CheckpointId& id : named_checkpoints(folder)) {
    try {
      static_cast<void>(checked_index(id));
    } catch (const Error&) {
      continue;  // not whole: this is what is asked
    }
    whole.push_back(std::move(id));
  }
  return whole;
}

std::optional<CheckpointId> latest_whole_checkpoint(const std::filesystem::path& folder,
                                                    std::vector<SkippedCheckpoint>* skipped) {
  for (CheckpointId& id : named_checkpoints(folder)) {
    try {
      const CheckpointReader verified(id);
      return std::move(id);
    } catch (const Error& error) {
      if (skipped != nullptr) skipped->push_back({id.path, error.what()});
    }
  }
  return std::nullopt;
}

void keep_newest_checkpoints(const std::filesystem::path& folder, int keep) {
  check_invariant(keep >= 1, "at least one checkpoint is kept");
  const std::vector<CheckpointId> whole = whole_checkpoints(folder);
  // What is damaged is left to whoever may mend it.
  for (auto older = static_cast<std::size_t>(keep); older < whole.size(); ++older) delete_checkpoint(whole[older].path);
  remove_abandoned(folder);
}

}  // namespace penstock
