#include "engine/processes.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <sstream>
#include <utility>

#include "penstock/base/error.h"

namespace penstock::python {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void check_all_alike(ProcessGroup& group, const std::string& description) {
  const std::vector<std::string> texts = group.exchange("pipeline", description);
  const std::vector<std::string> first = lines_of(texts.front());
  for (std::size_t process = 1; process < texts.size(); ++process) {
    const std::vector<std::string> other = lines_of(texts[process]);
    for (std::size_t line = 0; line < std::max(first.size(), other.size()); ++line) {
      const std::string here = line < first.size() ? first[line] : "nothing";
      const std::string there = line < other.size() ? other[line] : "nothing";
      if (here != there)
        throw bad_input(fmt::format("process {} has {}, process 0 has {}", process, shortened(there), shortened(here)),
                        "the same pipeline in every process", "let all run the same script with the same settings");
    }
  }
}

}  // namespace

std::optional<ProcessSettings> part_of_environment(int number) {
  std::optional<ProcessSettings> part = process_of_environment();
  if (!part || part->processes == 1) return std::nullopt;
  if (!part->run_identity.empty()) part->run_identity += fmt::format("/pipeline {}", number);
  if (!part->store_is_elsewhere && number > 1) {
    // The place where the one before has met may not be free yet.
    part->port += number - 1;
    part->listening_socket = -1;
  }
  return part;
}

std::unique_ptr<ProcessGroup> join(SharedPipeline shared, int ranks, const std::vector<at::Device>& devices,
                                   const std::shared_ptr<Crossing>& crossing) {
  ProcessSettings& part = shared.part;
  part.ranks = ranks;
  part.asked_to_stop = [crossing] { return crossing->asked_to_stop() ? SIGINT : 0; };
  check_process_settings(part);
  const auto [first, end] = ranks_of_process(part.process, part.processes, ranks);
  for (std::size_t rank = first.index(); rank < end.index() && !devices.empty(); ++rank)
    part.devices.push_back(devices[rank % devices.size()].str());
  auto group = std::make_unique<ProcessGroup>(part);
  tell_joined();
  check_all_alike(*group, shared.description);
  return group;
}

void save_together(Pipeline& pipeline, const ProcessGroup& group, const std::string& folder, std::int64_t step,
                   const std::string& metadata) {
  if (group.process() == 0) {
    CheckpointWriter writer(folder, step);
    static_cast<void>(pipeline.exchange(writer.temporary_folder().string()));
    pipeline.save(writer.own_part());
    const std::vector<std::string> parts = pipeline.exchange({});
    for (std::size_t process = 1; process < parts.size(); ++process) writer.add(parts[process]);
    writer.commit(metadata);
  } else {
    CheckpointPart part(pipeline.exchange({}).front());
    pipeline.save(part);
    static_cast<void>(pipeline.exchange(part.contents()));
  }
  // Nobody looks for it before it is there.
  static_cast<void>(pipeline.exchange({}));
}

FoundCheckpoint tell_all(Pipeline& pipeline, const FoundCheckpoint& of_first) {
  constexpr char separator = '\n';
  const std::string own =
      fmt::format("{}{}{}{}{}", of_first.id.step, separator, of_first.id.path.string(), separator, of_first.refusal);
  const std::string told = pipeline.exchange(own).front();
  const std::size_t path = told.find(separator);
  const std::size_t refusal = told.find(separator, path + 1);
  FoundCheckpoint found{{std::stoll(told.substr(0, path)), told.substr(path + 1, refusal - path - 1)},
                        told.substr(refusal + 1)};
  std::error_code ignored;
  if (found.refusal.empty() && !std::filesystem::exists(found.id.path, ignored))
    throw bad_input(fmt::format("no {} in this process", shortened(found.id.path.string())),
                    "a folder that every process sees", "put it on a file system that all machines share");
  return found;
}

}  // namespace penstock::python
