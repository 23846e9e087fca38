#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>
#include <mutex>
#include <random>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/Flags.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "penstock/base/error.h"
#include "penstock/base/hash.h"
#include "penstock/base/limits.h"
#include "penstock/base/listening.h"
#include "penstock/base/thread.h"
#include "penstock/transport/c10d.h"

#include "transport/c10d/backend.h"
#include "transport/c10d/direct.h"
#include "transport/c10d/link.h"
#include "transport/c10d/shared_memory.h"
#include "transport/c10d/store.h"
#include "transport/inbox.h"

C10_DECLARE_int(caffe2_log_level);

namespace penstock {
namespace {

static_assert(most_message_tensors == most_tensors);

std::string ranks_text(int process, int processes, int ranks) {
  const auto [first, end] = ranks_of_process(process, processes, ranks);
  if (end.value - first.value == 1) return fmt::format("process {} (rank {})", process, first.value);
  return fmt::format("process {} (ranks {} to {})", process, first.value, end.value - 1);
}

std::string drawn_identity() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

Error store_is_gone() {
  return run_failed("process 0 gone or stopped while the processes came together", "all processes of the run",
                    "see process 0's own error");
}

// Gloo and c10d throw what they like where another process ends while links are made.
Error lost_while_meeting(const std::exception& error) {
  const std::string reason = error.what();
  return run_failed(fmt::format("a process lost while the processes came together: {}",
                                shortened(reason.substr(0, reason.find('\n')), 200)),
                    "all processes of the run", "see the other processes' own errors");
}

// libtorch prints what it also throws, and penstock says it in its own words. Whoever has chosen a level keeps it.
void quiet_libtorch() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 3;  // NOLINT: only what ends a process
  });
}

// libtorch's current one, where the name has no number.
at::Device numbered(const std::string& name) {
  try {
    const at::Device device(name);
    if (device.is_cpu() || device.has_index()) return device;
    return c10::impl::VirtualGuardImpl(device.type()).getDevice();
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    throw bad_input(fmt::format("device \"{}\": {}", name, reason.substr(0, reason.find('\n'))),
                    "one that libtorch knows", "change `devices`");
  }
}

}  // namespace

class ProcessGroup::State {
 public:
  State(const ProcessSettings& settings, const DirectBackend& direct);
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  ~State();

  void send(RankId from, RankId to, const Tag& tag, MessageTensors message);
  [[nodiscard]] Inbox& inbox(RankId rank) { return inboxes_[rank.index() - first_.index()]; }
  [[nodiscard]] bool is_own(RankId rank) const { return rank >= first_ && rank < end_; }
  // Null for own ranks, and where several share this process.
  [[nodiscard]] Link* link_of_only_rank(RankId other) const {
    return inboxes_.size() == 1 && !is_own(other) ? links_[static_cast<std::size_t>(process_of(other))].get() : nullptr;
  }
  [[nodiscard]] int process_of(RankId rank) const;
  void abort(const std::string& reason, bool peer_is_lost);
  void keep_reason(const std::string& reason, bool peer_is_lost);
  void check_not_aborted();
  void check_soon_not_aborted();
  [[nodiscard]] std::vector<std::string> exchange(const std::string& name, const std::string& text);
  bool comes(const std::string& key, std::chrono::steady_clock::time_point deadline);
  [[nodiscard]] std::string agreed_identity();
  void meet();
  [[nodiscard]] std::string key_of(const std::string& name, int process) const;
  void agree(int stop_signal);
  void leave_where_asked();
  void see_others_leave();
  [[nodiscard]] std::vector<std::unique_ptr<SharedMemory>> share_memory();
  void reach_devices(const DirectBackend& backend);
  void link_to(int process, std::unique_ptr<SharedMemory> shared);
  void put(const FrameAddress& address, MessageTensors message, std::function<bool()> wait);
  void beat();

  ProcessSettings settings_;
  RankId first_;
  RankId end_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::vector<Inbox> inboxes_;  // by own rank
  std::atomic<bool> aborted_{false};
  c10::intrusive_ptr<c10d::Backend> backend_;
  std::unique_ptr<DirectChannels> direct_;    // null where all tensors are on the host
  std::vector<std::unique_ptr<Link>> links_;  // by process; none to oneself
  bool meeting_ = true;                       // the others may not be there yet
  std::mutex mutex_;
  std::condition_variable ending_changed_;
  bool ending_ = false;
  std::string reason_;  // of the first abort
  bool peer_is_lost_ = false;
  std::thread heart_;
};

ProcessGroup::State::State(const ProcessSettings& settings, const DirectBackend& direct)
    : settings_(settings),
      first_(ranks_of_process(settings.process, settings.processes, settings.ranks).first),
      end_(ranks_of_process(settings.process, settings.processes, settings.ranks).second),
      inboxes_(end_.index() - first_.index()),
      links_(static_cast<std::size_t>(settings.processes)) {
  if (settings_.processes == 1) return;
  const std::string links = fmt::format("process {} of {}", settings_.process, settings_.processes);
  need_descriptors(descriptors_for(settings_.processes), links);
  need_threads(threads_for(settings_.processes), links);
  quiet_libtorch();
  store_ = open_store(settings_);
  meet();
  if (settings_.own_address.empty()) settings_.own_address = address_towards(settings_.address);
  backend_ = make_backend(settings_, store_);
  reach_devices(direct);
  std::vector<std::unique_ptr<SharedMemory>> shared = share_memory();
  for (int process = 0; process < settings_.processes; ++process)
    if (process != settings_.process) link_to(process, std::move(shared[static_cast<std::size_t>(process)]));
  heart_ = start_thread([this] { beat(); });
}

// Drawn by process 0.
std::string ProcessGroup::State::agreed_identity() {
  const std::string key = "penstock/identity";
  const auto deadline = std::chrono::steady_clock::now() + to_chrono(settings_.join_timeout);
  try {
    if (settings_.process == 0) store_->set(key, drawn_identity());
    if (comes(key, deadline)) return store_->get_to_str(key);
  } catch (const std::exception&) {
    throw store_is_gone();
  }
  throw run_failed(fmt::format("no process 0 within {:.0f} s", settings_.join_timeout.count / 1000),
                   "all processes of the run", "start process 0");
}

// Says who is missing and who is there twice, which the process group would not.
void ProcessGroup::State::meet() {
  if (settings_.run_identity.empty()) {
    settings_.run_identity = agreed_identity();
  }
  std::int64_t count = 0;
  try {
    count = store_->add(key_of("joined", settings_.process), 1);
  } catch (const std::exception&) {
    throw store_is_gone();
  }
  if (count > 1)
    throw bad_input(fmt::format("another process {} of this run", settings_.process), "one process for each number",
                    "give each process its own RANK");
  static_cast<void>(exchange("joined", fmt::format("{} ranks", settings_.ranks)));
  agree(0);
  meeting_ = false;
}

std::string ProcessGroup::State::key_of(const std::string& name, int process) const {
  return fmt::format("penstock/{}/{}/{}", settings_.run_identity, name, process);
}

// The first word counts: that all are there, and from then on they stop together after a step, or that one was asked to
// stop before, and nobody waits for the others any more. \param stop_signal 0: all are there.
void ProcessGroup::State::agree(int stop_signal) {
  int agreed = 0;
  try {
    agreed = std::stoi(store_->compareSet(key_of("decision", 0), std::string(), std::to_string(stop_signal)));
    if (agreed == 0) return;
    store_->set(key_of("left", settings_.process), std::string("left"));
    if (settings_.process == 0) see_others_leave();
  } catch (const std::exception&) {
    throw store_is_gone();
  }
  throw StoppedWhileJoining(agreed);
}

// They read the decision from this process.
void ProcessGroup::State::see_others_leave() {
  constexpr std::chrono::milliseconds between{10};
  constexpr std::chrono::seconds longest{5};
  const auto deadline = std::chrono::steady_clock::now() + longest;
  for (int process = 1; process < settings_.processes; ++process)
    while (!store_->check({key_of("left", process)}) && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(between);
}

void ProcessGroup::State::leave_where_asked() {
  // Process 0 is there: it waits no longer than until it has named the run.
  if (settings_.run_identity.empty()) return;
  const int own = settings_.asked_to_stop ? settings_.asked_to_stop() : 0;
  if (own != 0 || store_->check({key_of("decision", 0)})) agree(own);
}

// With each of the other processes of this machine, by process; null with those of others. The lower one makes it.
std::vector<std::unique_ptr<SharedMemory>> ProcessGroup::State::share_memory() {
  const auto processes = static_cast<std::size_t>(settings_.processes);
  const auto own = static_cast<std::size_t>(settings_.process);
  std::vector<std::unique_ptr<SharedMemory>> shared(processes);
  const std::string machine = settings_.shared_memory ? machine_name() : "";
  const std::vector<std::string> machines = exchange("machine", machine);
  std::vector<std::string> offers(processes);
  for (std::size_t other = own + 1; other < processes; ++other) {
    if (machine.empty() || machines[other] != machine) continue;
    shared[other] = SharedMemory::make();
    if (shared[other]) offers[other] = shared[other]->name();
  }
  const std::vector<std::string> all_offers = exchange("shared memory", fmt::format("{}", fmt::join(offers, "\n")));
  std::string taken(processes, 'n');
  for (std::size_t other = 0; other < own; ++other) {
    std::istringstream lines(all_offers[other]);
    std::string offer;
    for (std::size_t line = 0; line <= own; ++line) std::getline(lines, offer);
    if (!machine.empty() && machines[other] == machine) shared[other] = SharedMemory::open(offer);
    if (shared[other]) taken[other] = 'y';
  }
  const std::vector<std::string> all_taken = exchange("shared memory taken", taken);
  for (std::size_t other = own + 1; other < processes; ++other)
    if (all_taken[other].size() != processes || all_taken[other][own] != 'y') shared[other].reset();
  return shared;
}

// Every process says what its devices are. \throws Error (BadInput) for one that libtorch does not know.
void ProcessGroup::State::reach_devices(const DirectBackend& backend) {
  std::vector<at::Device> devices;
  std::vector<std::string> identities;
  for (const std::string& name : settings_.devices) {
    devices.push_back(numbered(name));
    identities.push_back(backend.identity_of(devices.back()));
  }
  identities.resize(inboxes_.size());
  const std::vector<std::string> all = exchange("devices", fmt::format("{}", fmt::join(identities, "\n")));
  std::vector<std::string> by_rank;
  for (int process = 0; process < settings_.processes; ++process) {
    const auto [first, end] = ranks_of_process(process, settings_.processes, settings_.ranks);
    std::istringstream lines(all[static_cast<std::size_t>(process)]);
    for (RankId rank = first; rank < end; ++rank.value) std::getline(lines, by_rank.emplace_back());
  }
  if (devices.empty()) return;
  ProcessSettings again = settings_;
  again.store_is_elsewhere = true;
  const auto open_again = [again] {
    return c10::make_intrusive<c10d::PrefixStore>(fmt::format("penstock/{}", again.run_identity), open_store(again));
  };
  auto channels = std::make_unique<DirectChannels>(backend, open_again, std::move(by_rank), std::move(devices), first_);
  if (channels->reaches_any({0}, first_) || channels->reaches_any(end_, {settings_.ranks}))
    direct_ = std::move(channels);
}

void ProcessGroup::State::put(const FrameAddress& address, MessageTensors message, std::function<bool()> wait) {
  std::function<void()> wait_or_throw;
  if (wait)
    wait_or_throw = [this, wait = std::move(wait), from = address.from] {
      if (wait()) return;
      check_soon_not_aborted();
      throw run_failed(fmt::format("no tensors from the device of rank {}", from), "those that it has announced",
                       "set NCCL_DEBUG=INFO to see why");
    };
  const Tag tag{static_cast<MessageKind>(address.tag_kind), address.channel, address.microbatch};
  try {
    inbox({address.to}).put({{address.from}, tag}, std::move(message), std::move(wait_or_throw));
  } catch (const Aborted&) {
    return;  // nobody will take it
  }
}

void ProcessGroup::State::link_to(int process, std::unique_ptr<SharedMemory> shared) {
  const auto [first, end] = ranks_of_process(process, settings_.processes, settings_.ranks);
  LinkSettings link;
  link.process = process;
  link.terms = {hash_of(settings_.run_identity.data(), settings_.run_identity.size()),
                first.value,
                end.value,
                first_.value,
                end_.value,
                message_kinds,
                direct_ && direct_->reaches_any(first, end)};
  for (const MessageKind kind :
       {MessageKind::Values, MessageKind::LossWeights, MessageKind::Report, MessageKind::Control})
    link.terms.kinds_without_strides |= std::uint64_t{1} << static_cast<unsigned>(kind);
  // Processes elsewhere have cores of their own, but where they are is not known here: no more than costs a delay.
  link.spin = std::chrono::microseconds(static_cast<std::int64_t>(spin_us_for(settings_.ranks)));
  link.direct = direct_.get();
  const std::string name = ranks_text(process, settings_.processes, settings_.ranks);
  LinkObserver observer;
  observer.on_message = [this](const FrameAddress& address, MessageTensors message, std::function<bool()> wait) {
    put(address, std::move(message), std::move(wait));
  };
  observer.on_abort = [this](const std::string& reason, bool peer_is_lost) {
    keep_reason(reason, peer_is_lost);
    aborted_ = true;
    for (Inbox& inbox : inboxes_) inbox.abort(reason, peer_is_lost);
    if (direct_) direct_->abort();
  };
  observer.on_lost = [this, name](const std::string& reason) {
    abort(fmt::format("{} is lost: {}", name, reason), /*peer_is_lost=*/true);
  };
  observer.on_failed = [this, name](const std::string& reason) {
    abort(run_failed(fmt::format("a link to {} that failed with \"{}\"", name, reason), "room for its messages",
                     "where memory ran out, lower `width`, `context` or `batch`")
              .what(),
          /*peer_is_lost=*/false);
  };
  links_[static_cast<std::size_t>(process)] =
      std::make_unique<Link>(*backend_, link, std::move(observer), std::move(shared));
}

// Often enough that one that comes late is not yet a sign of death.
void ProcessGroup::State::beat() {
  constexpr double beats = 6;
  const auto interval = to_chrono({std::min(settings_.peer_timeout.count / beats, 5'000.0)});
  std::unique_lock lock(mutex_);
  while (!ending_changed_.wait_for(lock, interval, [this] { return ending_; })) {
    lock.unlock();
    for (const auto& link : links_) {
      if (!link) continue;
      link->heartbeat();
      link->check_heard(settings_.peer_timeout);
    }
    lock.lock();
  }
}

ProcessGroup::State::~State() {
  constexpr std::chrono::seconds longest_goodbye{10};
  constexpr std::chrono::seconds longest_after_abort{1};
  const auto deadline = std::chrono::steady_clock::now() + (aborted_ ? longest_after_abort : longest_goodbye);
  for (const auto& link : links_)
    if (link) link->say_goodbye();
  for (const auto& link : links_)
    if (link) link->wait_for_goodbye(deadline);
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  ending_changed_.notify_all();
  if (heart_.joinable()) heart_.join();
  links_.clear();
}

int ProcessGroup::State::process_of(RankId rank) const {
  const auto guess = static_cast<int>(std::int64_t{rank.value} * settings_.processes / settings_.ranks);
  // Where ranks do not divide, a rank is at most one process further.
  return rank < ranks_of_process(guess, settings_.processes, settings_.ranks).second ? guess : guess + 1;
}

void ProcessGroup::State::send(RankId from, RankId to, const Tag& tag, MessageTensors message) {
  if (is_own(to)) {
    inbox(to).put({from, tag}, std::move(message));
    return;
  }
  if (aborted_) check_not_aborted();
  try {
    links_[static_cast<std::size_t>(process_of(to))]->send(
        {from.value, to.value, tag.channel, tag.microbatch, static_cast<std::uint8_t>(tag.kind)}, message);
  } catch (const Error& error) {
    // What no message holds is nobody's end, and all are to hear of it at once.
    if (error.kind() == ErrorKind::RunFailed) check_soon_not_aborted();
    throw;
  }
}

void ProcessGroup::State::abort(const std::string& reason, bool peer_is_lost) {
  keep_reason(reason, peer_is_lost);
  if (aborted_.exchange(true)) return;
  for (Inbox& inbox : inboxes_) inbox.abort(reason, peer_is_lost);
  for (const auto& link : links_)
    if (link) link->send_abort(reason, peer_is_lost);
  if (direct_) direct_->abort();
}

void ProcessGroup::State::keep_reason(const std::string& reason, bool peer_is_lost) {
  const std::scoped_lock lock(mutex_);
  if (!reason_.empty()) return;
  reason_ = reason;
  peer_is_lost_ = peer_is_lost;
}

void ProcessGroup::State::check_not_aborted() {
  const std::scoped_lock lock(mutex_);
  if (aborted_) throw Aborted(reason_, peer_is_lost_);
}

// What goes from device to device fails with errors that name nobody, maybe before a link has noticed who is gone.
void ProcessGroup::State::check_soon_not_aborted() {
  constexpr std::chrono::milliseconds between{10};
  constexpr std::chrono::seconds longest{2};
  const auto deadline = std::chrono::steady_clock::now() + longest;
  while (!aborted_ && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(between);
  check_not_aborted();
}

// Asks now and then, so that it ends soon after another process has. Whether it came in time.
bool ProcessGroup::State::comes(const std::string& key, std::chrono::steady_clock::time_point deadline) {
  constexpr std::chrono::milliseconds between{10};
  while (!store_->check({key})) {
    check_not_aborted();
    if (meeting_) leave_where_asked();
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(between);
  }
  return true;
}

std::vector<std::string> ProcessGroup::State::exchange(const std::string& name, const std::string& text) {
  if (settings_.processes == 1) return {text};
  const auto deadline = std::chrono::steady_clock::now() + to_chrono(settings_.join_timeout);
  std::vector<std::string> texts;
  std::vector<std::string> missing;
  try {
    store_->set(key_of(name, settings_.process), text);
    for (int process = 0; process < settings_.processes; ++process) {
      if (comes(key_of(name, process), deadline))
        texts.push_back(store_->get_to_str(key_of(name, process)));
      else
        missing.push_back(ranks_text(process, settings_.processes, settings_.ranks));
    }
  } catch (const Aborted&) {
    throw;
  } catch (const StoppedWhileJoining&) {
    throw;
  } catch (const std::exception&) {
    check_not_aborted();
    throw store_is_gone();
  }
  if (missing.empty()) return texts;
  throw run_failed(fmt::format("no {} within {:.0f} s", fmt::join(missing, ", "), settings_.join_timeout.count / 1000),
                   fmt::format("all {} processes", settings_.processes),
                   "see their own errors, or start them; `join_timeout` waits longer");
}

namespace {

class C10dTransport final : public Transport {
 public:
  // `link_to`: that of another process, where this one has no other rank; otherwise null.
  C10dTransport(RankId rank, int ranks, std::function<void(RankId, const Tag&, MessageTensors)> send,
                std::function<Link*(RankId)> link_to, Inbox& inbox, std::function<void(const std::string&)> abort)
      : rank_(rank),
        ranks_(ranks),
        send_(std::move(send)),
        link_to_(std::move(link_to)),
        inbox_(inbox),
        abort_(std::move(abort)) {}

  [[nodiscard]] RankId rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return ranks_; }
  void send(RankId to, const Tag& tag, MessageTensors message) override { send_(to, tag, std::move(message)); }
  [[nodiscard]] MessageTensors receive(RankId from, const Tag& tag) override {
    const SenderAndTag address{from, tag};
    if (Link* link = link_to_(from)) link->receive_until([&] { return inbox_.has_or_aborted(address); });
    ArrivedMessage message = inbox_.take(address, 0);
    last_arrival_ = message.at;
    if (message.wait) message.wait();
    return std::move(message.tensors);
  }
  [[nodiscard]] Milliseconds last_arrival() const override { return last_arrival_; }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override {
    if (Link* link = link_to_(from)) link->receive_ready();
    return inbox_.has({from, tag});
  }
  void abort(const std::string& reason) noexcept override { abort_(reason); }

 private:
  RankId rank_;
  int ranks_;
  std::function<void(RankId, const Tag&, MessageTensors)> send_;
  std::function<Link*(RankId)> link_to_;
  Inbox& inbox_;
  std::function<void(const std::string&)> abort_;
  Milliseconds last_arrival_;
};

}  // namespace

// Of each other process process 0 has the connection to the store besides that of Gloo and the shared memory; Gloo may
// have two connections for a moment, while both sides call.
int ProcessGroup::descriptors_for(int processes) {
  constexpr int own = 24;
  constexpr int of_each = 4;
  return processes == 1 ? 0 : own + of_each * (processes - 1);
}

int ProcessGroup::threads_for(int processes) {
  constexpr int own = 6;  // of the store, of Gloo, and the heart
  constexpr int of_each = 4;
  return processes == 1 ? 0 : own + of_each * (processes - 1);
}

ProcessGroup::ProcessGroup(const ProcessSettings& settings) : ProcessGroup(settings, nccl()) {}

ProcessGroup::ProcessGroup(const ProcessSettings& settings, const DirectBackend& direct) {
  check_process_settings(settings);
  try {
    state_ = std::make_unique<State>(settings, direct);
  } catch (const Error&) {
    throw;
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) throw no_room_for_thread(error);
    throw lost_while_meeting(error);
  } catch (const std::exception& error) {
    throw lost_while_meeting(error);
  }
}

ProcessGroup::~ProcessGroup() = default;

int ProcessGroup::process() const { return state_->settings_.process; }
int ProcessGroup::processes() const { return state_->settings_.processes; }
int ProcessGroup::ranks() const { return state_->settings_.ranks; }

std::vector<std::unique_ptr<Transport>> ProcessGroup::take_ends() {
  std::vector<std::unique_ptr<Transport>> ends;
  State* state = state_.get();
  for (RankId rank = state->first_; rank < state->end_; ++rank.value)
    ends.push_back(std::make_unique<C10dTransport>(
        rank, ranks(),
        [state, rank](RankId to, const Tag& tag, MessageTensors message) {
          state->send(rank, to, tag, std::move(message));
        },
        [state](RankId from) { return state->link_of_only_rank(from); }, state->inbox(rank),
        [state](const std::string& reason) { state->abort(reason, /*peer_is_lost=*/false); }));
  return ends;
}

std::vector<std::string> ProcessGroup::exchange(const std::string& name, const std::string& text) {
  return state_->exchange("given/" + name, text);
}

void ProcessGroup::abort(const std::string& reason) { state_->abort(reason, /*peer_is_lost=*/false); }

std::vector<LinkReport> ProcessGroup::report() const {
  std::vector<LinkReport> reports;
  for (const auto& link : state_->links_)
    if (link) reports.push_back(link->report());
  return reports;
}

}  // namespace penstock
