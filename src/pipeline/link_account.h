// Adds up what went over the links, from what the ranks say of their steps.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/exec/rank.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

// What one rank says of a step; both by event, all ranks on one clock.
struct RankTraffic {
  const std::vector<Event>& events;
  const std::vector<Receipt>& receipts;
};

class LinkAccount {
 public:
  // `leaders`: the first rank of each process.
  LinkAccount(int stages, int microbatches, std::vector<RankId> leaders);

  // A step, by rank. Messages whose send is missing are passed over.
  void add(const std::vector<RankTraffic>& ranks);
  void reset() { uses_.clear(); }
  // By sender and receiver.
  [[nodiscard]] std::vector<LinkUse> uses() const;

 private:
  [[nodiscard]] std::size_t process_of(RankId rank) const;

  int stages_;
  int microbatches_;
  std::vector<RankId> leaders_;
  std::map<std::pair<RankId, RankId>, LinkUse> uses_;
};

}  // namespace penstock
