// This process's links to all others of its run, and the ranks that talk through them.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "penstock/base/types.h"
#include "penstock/transport/c10d.h"
#include "penstock/transport/transport.h"
#include "penstock/wire/shared_memory.h"

#include "transport/c10d/first_abort.h"
#include "transport/c10d/rendezvous.h"
#include "transport/device/direct.h"
#include "transport/inbox.h"
#include "transport/link/link.h"

namespace penstock {

// What `ProcessGroup` stands for. Outlives its ends of the transport.
class LinkedProcesses {
 public:
  // Meets the others. \param direct what brings tensors from device to device. \throws as the constructor of
  // `ProcessGroup`, and what libtorch throws if another process ends while links are made
  LinkedProcesses(const ProcessSettings& settings, const DirectBackend& direct);
  LinkedProcesses(const LinkedProcesses&) = delete;
  LinkedProcesses& operator=(const LinkedProcesses&) = delete;
  LinkedProcesses(LinkedProcesses&&) = delete;
  LinkedProcesses& operator=(LinkedProcesses&&) = delete;
  ~LinkedProcesses();

  [[nodiscard]] const ProcessSettings& settings() const { return settings_; }
  // As those of `ProcessGroup`.
  [[nodiscard]] std::vector<std::unique_ptr<Transport>> take_ends();
  [[nodiscard]] std::vector<std::string> exchange(const std::string& name, const std::string& text);
  [[nodiscard]] std::vector<LinkReport> report() const;
  void abort(const std::string& reason) { give_up(reason, /*peer_is_lost=*/false, /*tell_others=*/true); }

 private:
  class End;
  void join(const DirectBackend& direct);
  void start_links();
  void close_links();
  void link_to(int process, std::unique_ptr<SharedMemory> shared);
  [[nodiscard]] LinkTerms terms_with(int process) const;
  void put(const FrameAddress& address, MessageTensors message, std::function<bool()> wait);
  void send(RankId from, RankId to, const Tag& tag, MessageTensors message);
  [[nodiscard]] Inbox& inbox(RankId rank) { return inboxes_[rank.index() - first_.index()]; }
  [[nodiscard]] bool is_own(RankId rank) const { return rank >= first_ && rank < end_; }
  [[nodiscard]] int process_of(RankId rank) const;
  [[nodiscard]] Link& link_with(RankId other) const { return *links_[static_cast<std::size_t>(process_of(other))]; }
  // Null for own ranks, and if several share this process.
  [[nodiscard]] Link* link_of_only_rank(RankId other) const {
    return inboxes_.size() == 1 && !is_own(other) ? &link_with(other) : nullptr;
  }
  // Ends all waits of this process's ranks, and of the others' if they are to be told. The first reason stays.
  void give_up(const std::string& reason, bool peer_is_lost, bool tell_others);
  void beat();

  ProcessSettings settings_;
  RankId first_;
  RankId end_;
  SteadyClock clock_;
  FirstAbort abort_;
  std::unique_ptr<Rendezvous> rendezvous_;  // null for the only process
  std::vector<Inbox> inboxes_;              // by own rank
  c10::intrusive_ptr<c10d::Backend> group_;
  std::unique_ptr<DirectChannels> devices_;   // null where all tensors are on the host
  std::vector<std::unique_ptr<Link>> links_;  // by process; none to oneself
  std::mutex mutex_;                          // guards what follows
  std::condition_variable ending_changed_;
  bool ending_ = false;
  std::thread heart_;
};

}  // namespace penstock
