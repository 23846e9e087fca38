#include <fmt/format.h>
#include <mutex>
#include <ranges>
#include <set>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/checkpoint/checkpoint.h"

#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_index.h"
#include "checkpoint/json_events.h"
#include "checkpoint/safetensors_writer.h"

namespace penstock {
namespace {

/// Creates `folder` and what is missing above it, durably: each new name is synced in the folder that holds it.
std::filesystem::path make_folder(const std::filesystem::path& folder) {
  const auto absolute = std::filesystem::absolute(folder).lexically_normal();
  std::vector<std::filesystem::path> missing;
  std::error_code problem;
  auto each = absolute.has_filename() ? absolute : absolute.parent_path();
  const auto whole = each;
  for (; !each.empty() && !std::filesystem::exists(each, problem); each = each.parent_path()) missing.push_back(each);
  for (const auto& next : std::views::reverse(missing)) {
    std::filesystem::create_directory(next, problem);
    if (problem)
      throw run_failed(fmt::format("cannot create {}: {}", next.string(), problem.message()),
                       "a folder that can be written", "check its permissions and the free space");
    sync_folder(next.parent_path());
  }
  return whole;
}

}  // namespace

struct CheckpointPart::State {
  std::filesystem::path folder;
  mutable std::mutex mutex;  // guards what follows
  CheckpointIndex index;
  std::set<std::pair<StageId, int>> begun;  // with the shard
  std::size_t finished = 0;
  bool committed = false;
};

CheckpointPart::CheckpointPart(std::filesystem::path folder) : state_(std::make_unique<State>()) {
  state_->folder = std::move(folder);
}

CheckpointPart::~CheckpointPart() = default;

void CheckpointPart::write_stage(StageId stage, std::span<const NamedTensor> tensors, int shard) {
  const std::string name = fmt::format("stage-{:03}", stage.value);
  const std::string file = shard == 0 ? name + ".safetensors" : fmt::format("{}-shard-{:03}.safetensors", name, shard);
  {
    const std::lock_guard lock(state_->mutex);
    check_invariant(!state_->committed && state_->begun.emplace(stage, shard).second,
                    "each shard of a stage is written once");
    for (const NamedTensor& named : tensors) {
      const auto [other, fresh] = state_->index.tensors.emplace(named.name, file);
      if (!fresh)
        throw bad_input(fmt::format("the tensor {} in {} and in {}", in_quotes(named.name), other->second, file),
                        "different names in all stages", "rename one of them");
    }
  }
  FileSum sum = write_summed_safetensors(state_->folder / file, tensors, {{"format", "pt"}});
  const std::lock_guard lock(state_->mutex);
  state_->index.files.emplace(file, std::move(sum));
  ++state_->finished;
}

std::string CheckpointPart::contents() const {
  const std::lock_guard lock(state_->mutex);
  if (state_->finished != state_->begun.size())
    throw run_failed(fmt::format("{} of {} stages written", state_->finished, state_->begun.size()),
                     "every stage of the part", "see the error of the stage that could not be written");
  return format_index(state_->index);
}

struct CheckpointWriter::State {
  State(const std::filesystem::path& wanted_folder, std::int64_t wanted_step)
      : folder(make_folder(wanted_folder)), step(wanted_step), temporary(folder, step), own(temporary.path()) {}

  const std::filesystem::path folder;
  const std::int64_t step;
  TemporaryFolder temporary;
  CheckpointPart own;
};

CheckpointWriter::CheckpointWriter(const std::filesystem::path& folder, std::int64_t step) {
  check_invariant(step >= 0, "a checkpoint's step is at least 0");
  state_ = std::make_unique<State>(folder, step);
  remove_abandoned(state_->folder);
}

CheckpointWriter::~CheckpointWriter() = default;

const std::filesystem::path& CheckpointWriter::temporary_folder() const { return state_->temporary.path(); }

CheckpointPart& CheckpointWriter::own_part() { return state_->own; }

void CheckpointWriter::add(const std::string& contents) {
  const CheckpointIndex other = parse_index(contents, "the part of another process");
  CheckpointPart::State& own = *state_->own.state_;
  const std::lock_guard lock(own.mutex);
  for (const auto& [file, sum] : other.files)
    if (!own.index.files.emplace(file, sum).second)
      throw run_failed(fmt::format("{} from two processes", file), "each stage from one",
                       "start every process of the run with the same settings");
  for (const auto& [name, file] : other.tensors)
    if (!own.index.tensors.emplace(name, file).second)
      throw run_failed(fmt::format("the tensor {} from two processes", in_quotes(name)), "each tensor from one",
                       "start every process of the run with the same settings");
}

void CheckpointWriter::commit(const std::string& metadata_json) {
  CheckpointPart::State& part = *state_->own.state_;
  const std::lock_guard lock(part.mutex);
  check_invariant(!std::exchange(part.committed, true), "a checkpoint is committed once");
  if (part.finished != part.begun.size() || part.index.files.empty())
    throw run_failed(fmt::format("{} of {} stages written", part.finished, part.begun.size()),
                     "every stage of the checkpoint, and at least one",
                     "see the error of the stage that could not be written");
  part.index.step = state_->step;
  part.index.metadata = metadata_json;
  const std::string text = format_index(part.index);
  FileWriter writer(state_->temporary.path() / checkpoint_index_name);
  writer.write(text.data(), text.size());
  writer.sync_and_close();
  state_->temporary.publish_as(state_->folder / checkpoint_folder_name(state_->step));
}

}  // namespace penstock
