// How the processes of a run find each other, and what they tell each other before there are links: through a store.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "penstock/base/types.h"
#include "penstock/transport/c10d.h"

namespace penstock {

// "process 1 (ranks 2 to 3)".
[[nodiscard]] std::string name_of_process(int process, const ProcessSettings& settings);

// What every process calls with a text under the same name, to get those of all by process.
using Exchange = std::function<std::vector<std::string>(const std::string& name, const std::string& text)>;

// How a rendezvous waits. The clock outlives it.
struct RendezvousWaits {
  const Clock& clock;
  std::function<void()> pause;  // between two looks at the store
  std::function<void()> check;  // called before each look; what it throws ends the wait
};

class Rendezvous {
 public:
  Rendezvous(c10::intrusive_ptr<c10d::Store> store, ProcessSettings settings, RendezvousWaits waits);

  // Returns once all processes are there. \throws Error (BadInput) if another process has this one's number;
  // (RunFailed) that names those who have not come within `join_timeout`; StoppedWhileJoining if one was asked to stop.
  void meet();
  // The run's, which process 0 draws while they meet if the settings have none.
  [[nodiscard]] const std::string& run_identity() const { return settings_.run_identity; }
  [[nodiscard]] const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }
  // As `ProcessGroup::exchange`.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& name, const std::string& text);

 private:
  [[nodiscard]] std::string key_of(const std::string& name, int process) const;
  [[nodiscard]] std::string agreed_identity();
  [[nodiscard]] Milliseconds deadline() const;
  bool comes(const std::string& key, Milliseconds deadline);
  void agree(int stop_signal);
  void leave_if_asked();
  void see_others_leave();

  c10::intrusive_ptr<c10d::Store> store_;
  ProcessSettings settings_;
  RendezvousWaits waits_;
  bool meeting_ = true;  // the others may not be there yet
};

}  // namespace penstock
