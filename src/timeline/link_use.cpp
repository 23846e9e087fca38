#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "penstock/timeline/timeline.h"

namespace penstock {
namespace {

LinkUse sum_of(const LinkUse* first, const LinkUse* end) {
  LinkUse sum;
  for (const LinkUse* use = first; use != end; ++use) {
    sum.bytes += use->bytes;
    sum.messages += use->messages;
    sum.waited += use->waited;
    sum.transfer += use->transfer;
    sum.hidden += use->hidden;
    sum.between_processes = sum.between_processes || use->between_processes;
  }
  return sum;
}

std::string link_line(const std::string& name, const std::string& way, const LinkUse& use) {
  return fmt::format("{:<12}  {:<9}  {:>10}  {:>8}  {:>9}  {:>9}  {:>5.0f}%\n", name, way, to_string(use.bytes),
                     use.messages, to_string(use.waited), to_string(use.transfer), 100 * hidden_share(use));
}

}  // namespace

double hidden_share(const LinkUse& use) { return use.transfer.count > 0 ? use.hidden.count / use.transfer.count : 1; }

std::string link_table(const std::vector<LinkUse>& links, std::size_t most) {
  if (links.empty()) return {};
  std::vector<LinkUse> shown = links;
  const bool all = shown.size() <= most;
  if (!all) {
    std::stable_sort(shown.begin(), shown.end(),
                     [](const LinkUse& a, const LinkUse& b) { return a.waited > b.waited; });
  }
  const std::size_t lines = all ? shown.size() : most - 1;
  std::string table = fmt::format("{:<12}  {:<9}  {:>10}  {:>8}  {:>9}  {:>9}  {:>6}\n", "link", "between", "sent",
                                  "messages", "waited", "transfer", "hidden");
  for (std::size_t line = 0; line < lines; ++line) {
    const LinkUse& use = shown[line];
    table += link_line(fmt::format("{} to {}", use.from, use.to), use.between_processes ? "processes" : "threads", use);
  }
  if (all) return table;
  const LinkUse rest = sum_of(shown.data() + lines, shown.data() + shown.size());
  return table + link_line(fmt::format("{} others", shown.size() - lines), "", rest);
}

std::string to_json(const std::vector<LinkUse>& links) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const LinkUse& use : links)
    list.push_back({{"from", use.from},
                    {"to", use.to},
                    {"between_processes", use.between_processes},
                    {"bytes", use.bytes.count},
                    {"messages", use.messages},
                    {"waited_ms", use.waited.count},
                    {"transfer_ms", use.transfer.count},
                    {"hidden", hidden_share(use)}});
  return list.dump(1) + "\n";
}

}  // namespace penstock
