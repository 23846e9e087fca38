#include "pipeline/control.h"

#include <algorithm>

#include "penstock/base/error.h"
#include "penstock/exec/memory.h"
#include "penstock/exec/message_kind.h"

#include "pipeline/record_message.h"

namespace penstock {
namespace {

Tag word_of(RankId rank) { return {MessageKind::Control, rank.value, 0}; }

}  // namespace

ControlWord all_of(const std::vector<ControlWord>& words) {
  ControlWord all;
  for (const ControlWord& word : words) {
    check_invariant(word.stop_signal >= 0 && word.stop_signal < 32, "a signal has a number of 1 to 31");
    if (word.stop_signal != 0)
      all.stop_signal = all.stop_signal == 0 ? word.stop_signal : std::min(all.stop_signal, word.stop_signal);
    all.saving = all.saving || word.saving;
  }
  return all;
}

void Control::announce(RankId rank, const ControlWord& own) {
  if (rank != team_.first()) return;
  for (const RankId leader : team_.leaders())
    if (leader != rank) send_records<ControlWord>(team_.transport(rank), leader, word_of(rank), {own});
}

void Control::agree(RankId rank, ControlWord& own) {
  if (rank != team_.first()) return;
  std::vector<ControlWord> words{own};
  for (const RankId leader : team_.leaders())
    if (leader != rank)
      words.push_back(receive_records<ControlWord>(team_.transport(rank), leader, word_of(leader)).at(0));
  own = all_of(words);
}

std::vector<std::string> Control::exchange(const std::string& text) {
  if (team_.processes() == 1) return {text};
  std::vector<std::string> texts;
  team_.run([&](RankId rank) {
    if (rank != team_.first()) return;
    const UncountedMemory exchanged;
    texts = all_gather_texts(team_.transport(rank), text, team_.leaders());
  });
  return texts;
}

}  // namespace penstock
