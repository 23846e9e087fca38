#include "penstock/nn/ties.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <tuple>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using Members = std::vector<ParameterAddress>;

bool comes_first(const ParameterAddress& a, const ParameterAddress& b) {
  return std::tie(a.layer, a.name) < std::tie(b.layer, b.name);
}

bool contains(const Members& members, const ParameterAddress& address) {
  return std::find(members.begin(), members.end(), address) != members.end();
}

// What is connected, whichever way round.
std::vector<Members> connected(const std::vector<Tie>& ties) {
  std::vector<Members> groups;
  for (const Tie& tie : ties) {
    Members joined{tie.owner, tie.copy};
    std::vector<Members> others;
    for (Members& group : groups) {
      if (contains(group, tie.owner) || contains(group, tie.copy))
        joined.insert(joined.end(), group.begin(), group.end());
      else
        others.push_back(std::move(group));
    }
    std::sort(joined.begin(), joined.end(), comes_first);
    joined.erase(std::unique(joined.begin(), joined.end()), joined.end());
    others.push_back(std::move(joined));
    groups = std::move(others);
  }
  std::sort(groups.begin(), groups.end(),
            [](const Members& a, const Members& b) { return comes_first(a.front(), b.front()); });
  return groups;
}

std::string listed(const Members& members) {
  std::vector<std::string> names;
  names.reserve(members.size());
  std::transform(members.begin(), members.end(), std::back_inserter(names), to_text);
  return fmt::format("{}", fmt::join(names, ", "));
}

ParameterAddress owner_of(const Members& members, const std::vector<Tie>& ties) {
  Members owners;
  std::copy_if(members.begin(), members.end(), std::back_inserter(owners), [&](const ParameterAddress& member) {
    return std::none_of(ties.begin(), ties.end(), [&](const Tie& tie) { return tie.copy == member; });
  });
  if (owners.empty())
    throw bad_input(fmt::format("ties that go round in a circle: {}", listed(members)),
                    "one owner that is nobody's copy", "drop the tie in Network::ties that closes the circle");
  if (owners.size() > 1)
    throw bad_input(fmt::format("{} owners of what is tied together: {}", owners.size(), listed(owners)), "one owner",
                    "tie one of them to the other in Network::ties");
  return owners.front();
}

}  // namespace

std::string to_text(const ParameterAddress& address) { return fmt::format("layer {} {}", address.layer, address.name); }

std::vector<TieGroup> tie_groups(const std::vector<Tie>& ties) {
  for (const Tie& tie : ties)
    if (tie.owner == tie.copy)
      throw bad_input(fmt::format("a tie of {} with itself", to_text(tie.owner)), "two parameters",
                      "correct Network::ties");
  std::vector<TieGroup> groups;
  for (Members& members : connected(ties)) {
    ParameterAddress owner = owner_of(members, ties);
    groups.push_back({std::move(owner), std::move(members)});
  }
  return groups;
}

const TieGroup* group_of(const std::vector<TieGroup>& groups, const ParameterAddress& address) {
  const auto found = std::find_if(groups.begin(), groups.end(),
                                  [&](const TieGroup& group) { return contains(group.members, address); });
  return found == groups.end() ? nullptr : &*found;
}

}  // namespace penstock
