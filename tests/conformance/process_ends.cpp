#include "conformance/process_ends.h"

#include <atomic>
#include <fmt/format.h>
#include <string>
#include <thread>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/listening.h"
#include "penstock/transport/c10d.h"

#include "transport/c10d/linked_processes.h"
#include "transport/device/direct.h"
#include "transport/gloo/backend.h"

namespace penstock::conformance {
namespace {

// Processes that here live in one. They end together, as each waits for the others.
template <class Process>
class Group {
 public:
  explicit Group(int processes) : all(static_cast<std::size_t>(processes)) {}
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  Group(Group&&) = delete;
  Group& operator=(Group&&) = delete;
  ~Group() {
    std::vector<std::thread> threads;
    threads.reserve(all.size());
    for (auto& process : all) threads.emplace_back([&process] { process.reset(); });
    for (std::thread& thread : threads) thread.join();
  }
  std::vector<std::unique_ptr<Process>> all;
};

class GroupedEnd final : public Transport {
 public:
  GroupedEnd(std::shared_ptr<void> group, std::unique_ptr<Transport> end)
      : group_(std::move(group)), end_(std::move(end)) {}
  [[nodiscard]] RankId rank() const override { return end_->rank(); }
  [[nodiscard]] int ranks() const override { return end_->ranks(); }
  void send(RankId to, const Tag& tag, std::vector<at::Tensor> message) override {
    end_->send(to, tag, std::move(message));
  }
  [[nodiscard]] std::vector<at::Tensor> receive(RankId from, const Tag& tag) override {
    return end_->receive(from, tag);
  }
  [[nodiscard]] Milliseconds last_arrival() const override { return end_->last_arrival(); }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override { return end_->has_arrived(from, tag); }
  void abort(const std::string& reason) noexcept override { end_->abort(reason); }

 private:
  std::shared_ptr<void> group_;
  std::unique_ptr<Transport> end_;
};

// Gloo in place of NCCL, on the host in place of devices: every tensor goes beside the frames.
DirectBackend stand_in_for_nccl() {
  const auto devices = std::make_shared<std::atomic<int>>(0);
  return {[devices](at::Device) { return fmt::format("device {}", (*devices)++); },
          [](const c10::intrusive_ptr<c10d::Store>& store, int member) {
            ProcessSettings pair;
            pair.process = member;
            pair.processes = 2;
            pair.own_address = "127.0.0.1";
            return make_backend(pair, store);
          }};
}

// \param make one process, called on a thread of its own.
template <class Process, class Make>
Ends ends_of(ProcessSettings settings, Make make) {
  const int socket = listen_on(settings.address, 0);
  settings.port = port_of(socket);
  const auto group = std::make_shared<Group<Process>>(settings.processes);
  std::vector<std::thread> threads;
  for (settings.process = 0; settings.process < settings.processes; ++settings.process) {
    settings.listening_socket = settings.process == 0 ? socket : -1;
    threads.emplace_back(
        [settings, &make, &process = group->all[static_cast<std::size_t>(settings.process)]]() mutable {
          process = make(std::move(settings));
        });
  }
  for (std::thread& thread : threads) thread.join();
  Ends ends;
  for (const auto& process : group->all)
    for (auto& end : process->take_ends()) ends.push_back(std::make_unique<GroupedEnd>(group, std::move(end)));
  return ends;
}

}  // namespace

Ends make_processes(int ranks, int ranks_per_process, bool shared_memory, Devices devices) {
  ProcessSettings settings;
  settings.shared_memory = shared_memory;
  settings.processes = (ranks + ranks_per_process - 1) / ranks_per_process;
  settings.ranks = ranks;
  if (devices == Devices::None)
    return ends_of<ProcessGroup>(settings,
                                 [](const ProcessSettings& own) { return std::make_unique<ProcessGroup>(own); });
  const DirectBackend gloo = stand_in_for_nccl();
  return ends_of<LinkedProcesses>(settings, [&](ProcessSettings own) {
    const auto [first, end] = ranks_of_process(own.process, own.processes, own.ranks);
    own.devices.assign(end.index() - first.index(), "cpu");
    return std::make_unique<LinkedProcesses>(own, gloo);
  });
}

}  // namespace penstock::conformance
