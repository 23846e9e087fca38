/// \file
/// Checkpoints: what a run needs to continue, kept so that a crash, a kill or a full disk at any moment leaves every
/// earlier checkpoint whole and never a part of a new one that could be taken for a checkpoint.
///
/// A run keeps them in one folder, `<folder>/step-00000300/` holding one safetensors file a stage and an index. The
/// folder is written under a temporary name, synced, and renamed at the end. docs/checkpoints.md specifies the format.
///
///     penstock::CheckpointWriter writer("checkpoints", /*step=*/100);
///     pipeline.save(writer.own_part());
///     writer.commit("");
///     const auto latest = penstock::latest_whole_checkpoint("checkpoints");
///     pipeline.load(penstock::CheckpointReader(*latest), /*updates=*/latest->step);
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/checkpoint/safetensors.h"

namespace penstock {

/// A checkpoint by the step after which it was written.
struct CheckpointId {
  std::int64_t step = 0;
  std::filesystem::path path;  ///< Its own folder, `<folder>/step-<step>`.

  friend bool operator==(const CheckpointId&, const CheckpointId&) = default;
};

/// A part of a checkpoint that is under way: the stages that one process writes into the folder of a
/// `CheckpointWriter`, its own or another process's.
class CheckpointPart {
 public:
  /// \param folder of the writer, as `CheckpointWriter::temporary_folder` says it.
  explicit CheckpointPart(std::filesystem::path folder);
  CheckpointPart(const CheckpointPart&) = delete;
  CheckpointPart& operator=(const CheckpointPart&) = delete;
  CheckpointPart(CheckpointPart&&) = delete;
  CheckpointPart& operator=(CheckpointPart&&) = delete;
  ~CheckpointPart();

  /// Writes the tensors of one stage to a file of its own and waits until they are on the disk. Thread-safe: the ranks
  /// write their stages at the same time. Each shard of a stage at most once, each tensor name in one of them only.
  /// \param shard where several ranks share the stage's tensors out among themselves: which share this is, at least 0
  /// \throws Error (RunFailed) where it cannot be written: the checkpoint can then no longer be committed.
  /// \throws Error (BadInput) for a name that another stage has written, or a tensor that safetensors cannot hold.
  void write_stage(StageId stage, std::span<const NamedTensor> tensors, int shard = 0);

  /// What was written, as a text for `CheckpointWriter::add`. \throws Error (RunFailed) where a stage could not be.
  [[nodiscard]] std::string contents() const;

 private:
  friend class CheckpointWriter;
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes one checkpoint. It exists from the moment at which `commit` renames it, whole; before that it does not exist
/// at all. A checkpoint of the same step that is already there is replaced in the same moment.
class CheckpointWriter {
 public:
  /// Makes a temporary folder within `folder` (which is created where it is missing) and removes those that killed runs
  /// left behind. Writers of live processes are told apart by a lock and left alone.
  /// \param step at least 0.
  /// \throws Error (RunFailed) where the folder cannot be written.
  CheckpointWriter(const std::filesystem::path& folder, std::int64_t step);
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;
  CheckpointWriter(CheckpointWriter&&) = delete;
  CheckpointWriter& operator=(CheckpointWriter&&) = delete;
  /// Removes what was written, unless it was committed.
  ~CheckpointWriter();

  /// Where the stages are written until `commit`.
  [[nodiscard]] const std::filesystem::path& temporary_folder() const;

  /// This process's part.
  [[nodiscard]] CheckpointPart& own_part();

  /// Takes in a part that another process has written into the folder. \param contents as its part says them.
  /// \throws Error (RunFailed) where they are damaged, or a file or tensor is in another part too.
  void add(const std::string& contents);

  /// Makes it a checkpoint. Call once, after every `write_stage` has returned and every other part was added.
  /// \param metadata_json text that the reader gives back to the byte; UTF-8, by custom a JSON object.
  /// \throws Error (RunFailed) where it cannot be written, or where a stage could not be.
  void commit(const std::string& metadata_json);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The checkpoints in `folder` that are complete by name, index and file sizes, newest first. Cheap: reads the indices
/// and no tensor. Empty where the folder does not exist. \throws Error (BadInput) where it cannot be listed.
[[nodiscard]] std::vector<CheckpointId> whole_checkpoints(const std::filesystem::path& folder);

/// Reads one checkpoint, whatever the cut it was written with. Const members may be called from any thread.
class CheckpointReader {
 public:
  /// Opens every file and verifies sizes and checksums, which reads all of it once.
  /// \throws Error (BadInput) that names the file where one is missing, damaged, foreign or of another version.
  explicit CheckpointReader(const CheckpointId& id);
  CheckpointReader(const CheckpointReader&) = delete;
  CheckpointReader& operator=(const CheckpointReader&) = delete;
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;
  ~CheckpointReader();

  [[nodiscard]] std::int64_t step() const;
  /// What `commit` was given.
  [[nodiscard]] const std::string& metadata() const;
  /// Whether there is a tensor of that name.
  [[nodiscard]] bool contains(std::string_view name) const;
  /// A contiguous CPU tensor that owns its memory. \throws Error (BadInput) where there is no such tensor.
  [[nodiscard]] at::Tensor read(std::string_view name) const;
  /// The names of all tensors of all stages, sorted.
  [[nodiscard]] std::vector<std::string> names() const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

/// A checkpoint that was not taken, and why: the message of the error that reading it gives.
struct SkippedCheckpoint {
  std::filesystem::path path;
  std::string reason;

  friend bool operator==(const SkippedCheckpoint&, const SkippedCheckpoint&) = default;
};

/// The newest checkpoint in `folder` that passes every check of CheckpointReader; none where there is none or no
/// folder.
/// \param skipped where given, receives the newer ones that are damaged, newest first.
/// \throws Error (BadInput) where the folder cannot be listed.
[[nodiscard]] std::optional<CheckpointId> latest_whole_checkpoint(const std::filesystem::path& folder,
                                                                  std::vector<SkippedCheckpoint>* skipped = nullptr);

/// Gives a checkpoint that is not whole another name, `damaged-step-…`, under which nothing takes, replaces or deletes
/// it. Returns it. \throws Error (RunFailed) where it cannot be renamed.
std::filesystem::path set_aside_checkpoint(const std::filesystem::path& path);

/// Deletes the whole checkpoints but the `keep` newest, and what killed runs left behind. Those that are not whole
/// stay. Each is first renamed to a temporary name, so a kill leaves whole checkpoints only. \param keep at least 1.
/// \throws Error (BadInput) where the folder cannot be listed, Error (RunFailed) where one cannot be deleted.
void keep_newest_checkpoints(const std::filesystem::path& folder, int keep);

}  // namespace penstock
