#include "run/agreement.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/hash.h"
#include "penstock/data/order.h"

namespace penstock {
namespace {

// Settings without their comments.
std::vector<std::string> setting_lines(const std::string& toml) {
  std::vector<std::string> lines;
  std::istringstream text(toml);
  for (std::string line; std::getline(text, line);) {
    const std::size_t equals = line.find(" = ");
    // The address that a process listens on is its own.
    if (equals == std::string::npos || line.front() == '#' || line.starts_with("listen = ")) continue;
    lines.push_back(line.substr(0, line.find("  #")));
  }
  return lines;
}

std::uint64_t mixed(std::uint64_t hash, const at::Tensor& tensor) {
  const at::Tensor plain = tensor.contiguous();
  return hash_of(plain.data_ptr(), plain.nbytes(), hash);
}

std::string description_of(const Job& job) {
  constexpr std::int64_t looked_at = 8;
  const std::int64_t size = job.train->size();
  const Minibatch minibatch = job.train->minibatch(evenly_spaced_samples(size, std::min(looked_at, size)));
  std::uint64_t content = empty_hash;
  for (const std::vector<Argument>* side : {&minibatch.inputs, &minibatch.targets})
    for (const Argument& argument : *side)
      if (argument.tensor.defined()) content = mixed(content, argument.tensor);
  return fmt::format("{} samples to train on, {} held out, a vocabulary of {} and the content {:016x}", size,
                     job.held_out ? job.held_out->size() : 0, job.data.vocabulary, content);
}

}  // namespace

void check_same_settings(ProcessGroup& group, const TrainSettings& settings) {
  const std::vector<std::string> texts = group.exchange("settings", to_toml(settings));
  const std::vector<std::string> first = setting_lines(texts.front());
  for (std::size_t process = 1; process < texts.size(); ++process) {
    const std::vector<std::string> other = setting_lines(texts[process]);
    for (std::size_t line = 0; line < std::max(first.size(), other.size()); ++line) {
      const std::string here = line < first.size() ? first[line] : "nothing";
      const std::string there = line < other.size() ? other[line] : "nothing";
      if (here != there)
        throw bad_input(fmt::format("process {} has {}, process 0 has {}", process, there, here),
                        "the same settings in every process", "start all processes with the same command");
    }
  }
}

void check_same_data(ProcessGroup& group, const Job& job) {
  const std::vector<std::string> texts = group.exchange("data", description_of(job));
  for (std::size_t process = 1; process < texts.size(); ++process)
    if (texts[process] != texts.front())
      throw bad_input(fmt::format("process {} has data of {}, process 0 of {}", process, texts[process], texts.front()),
                      "the same data in every process", "copy the files of `data` to every node");
}

std::optional<CheckpointId> agreed_checkpoint(ProcessGroup& group, const std::optional<CheckpointId>& proposed) {
  const std::string own = proposed ? fmt::format("{} {}", proposed->step, proposed->path.string()) : "";
  const std::string agreed = group.exchange("checkpoint", own).front();
  if (agreed.empty()) return std::nullopt;
  const std::size_t space = agreed.find(' ');
  CheckpointId id{std::stoll(agreed.substr(0, space)), agreed.substr(space + 1)};
  std::error_code ignored;
  if (!std::filesystem::exists(id.path, ignored))
    throw bad_input(fmt::format("no {} in process {}", id.path.string(), group.process()),
                    "a folder that every process sees", "put it on a file system that all nodes share");
  return id;
}

}  // namespace penstock
