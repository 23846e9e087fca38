#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <string_view>

#include "penstock/diagnosis/audit.h"

namespace penstock {
namespace {

std::string_view words_of(AuditedWay way) {
  switch (way) {
    case AuditedWay::Whole:
      return "on one stage";
    case AuditedWay::Split:
      return "with a split backward";
    case AuditedWay::Recomputed:
      return "recomputed";
    case AuditedWay::Apart:
      return "cut after every layer";
  }
  return "";
}

std::string_view verdict_of(const LayerAudit& layer) {
  if (!layer.refused.empty()) return "refused";
  if (!layer.differences.empty()) return "differs";
  return layer.leak.count > 0 ? "leaks" : "same bits";
}

std::string facts_of(const LayerAudit& layer) {
  std::vector<std::string> facts;
  if (layer.is_random) facts.emplace_back("random");
  if (layer.works_in_place) facts.emplace_back("changes its input, gets a copy");
  if (layer.changes_dtype) facts.emplace_back("changes the dtype");
  if (!layer.buffers.empty()) facts.push_back(fmt::format("changes its buffers {}", fmt::join(layer.buffers, ", ")));
  facts.insert(facts.end(), layer.shared.begin(), layer.shared.end());
  return fmt::format("{}", fmt::join(facts, "; "));
}

void add_differences(const std::vector<AuditDifference>& differences, const std::string& where, std::string& text) {
  constexpr std::size_t most = 4;
  for (std::size_t index = 0; index < std::min(differences.size(), most); ++index)
    text += fmt::format("{}: {}, {}, differs from libtorch's by {:.2g} of it\n", where,
                        words_of(differences[index].way), differences[index].what, differences[index].relative);
  if (differences.size() > most) text += fmt::format("{}: and {} more\n", where, differences.size() - most);
}

}  // namespace

bool AuditReport::holds() const {
  return refused.empty() && differences.empty() &&
         std::all_of(layers.begin(), layers.end(), [](const LayerAudit& layer) {
           return layer.refused.empty() && layer.differences.empty() && layer.leak.count == 0;
         });
}

std::string to_string(const AuditReport& report) {
  std::size_t width = 4;
  for (const LayerAudit& layer : report.layers) width = std::max(width, layer.name.size());
  std::string text = fmt::format("{:>5}  {:<{}}  {:<9}  {}\n", "layer", "name", width, "verdict", "what it does");
  for (const LayerAudit& layer : report.layers) {
    std::string line =
        fmt::format("{:>5}  {:<{}}  {:<9}  {}", layer.layer, layer.name, width, verdict_of(layer), facts_of(layer));
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  text += '\n';
  if (report.holds()) return text + "The network has the same bits on any number of stages, under any schedule.\n";
  if (!report.refused.empty()) text += fmt::format("the network: {}\n", report.refused);
  add_differences(report.differences, "the loss", text);
  for (const LayerAudit& layer : report.layers) {
    const std::string where = fmt::format("layer {} ({})", layer.layer, layer.name);
    if (!layer.refused.empty()) text += fmt::format("{}: {}\n", where, layer.refused);
    add_differences(layer.differences, where, text);
    if (layer.leak.count > 0)
      text += fmt::format("{}: it keeps {} more after each microbatch; free the tensors of earlier passes\n", where,
                          to_string(layer.leak));
    if (!layer.differences.empty() && layer.refused.empty())
      text += fmt::format(
          "{}: it depends on more than its inputs, parameters and buffers, perhaps on members that its "
          "forward pass changes; make these buffers\n",
          where);
  }
  return text;
}

}  // namespace penstock
