#include "transport/c10d/linked_processes.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <utility>

#include <c10/util/Flags.h>

#include "penstock/base/error.h"
#include "penstock/base/hash.h"
#include "penstock/base/limits.h"
#include "penstock/base/listening.h"
#include "penstock/base/thread.h"

#include "transport/c10d/store.h"
#include "transport/device/reach_devices.h"
#include "transport/gloo/backend.h"
#include "transport/gloo/gloo_channel.h"
#include "transport/shared_memory/share_memory.h"
#include "transport/shared_memory/shared_memory_channel.h"

C10_DECLARE_int(caffe2_log_level);

namespace penstock {
namespace {

static_assert(most_message_tensors == most_tensors);

// libtorch prints what it also throws, and penstock says it in its own words. Whoever has chosen a level keeps it.
void quiet_libtorch() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 3;  // NOLINT: only what ends a process
  });
}

int threads_for(int processes) {
  constexpr int own = 6;            // of the store, of Gloo, and the heart
  constexpr int for_each_link = 4;  // of the two channels
  return own + for_each_link * (processes - 1);
}

// What goes from device to device fails with errors that name nobody, maybe before a link has noticed who is gone.
constexpr Milliseconds until_a_loss_shows{2'000};
// How long one that is done waits for the others to be so, and these go on without it.
constexpr Milliseconds longest_goodbye{10'000};

}  // namespace

LinkedProcesses::LinkedProcesses(const ProcessSettings& settings, const DirectBackend& direct)
    : settings_(settings),
      first_(ranks_of_process(settings.process, settings.processes, settings.ranks).first),
      end_(ranks_of_process(settings.process, settings.processes, settings.ranks).second),
      inboxes_(end_.index() - first_.index()),
      links_(static_cast<std::size_t>(settings.processes)) {
  if (settings_.processes > 1) join(direct);
}

void LinkedProcesses::join(const DirectBackend& direct) {
  const std::string links = fmt::format("process {} of {}", settings_.process, settings_.processes);
  need_descriptors(ProcessGroup::descriptors_for(settings_.processes), links);
  need_threads(threads_for(settings_.processes), links);
  quiet_libtorch();
  const auto pause = [] {
    constexpr std::chrono::milliseconds between_looks{10};
    std::this_thread::sleep_for(between_looks);
  };
  rendezvous_ = std::make_unique<Rendezvous>(open_store(settings_), settings_,
                                             RendezvousWaits{clock_, pause, [this] { abort_.check(); }});
  rendezvous_->meet();
  settings_.run_identity = rendezvous_->run_identity();
  if (settings_.own_address.empty()) settings_.own_address = address_towards(settings_.address);
  group_ = make_backend(settings_, rendezvous_->store());
  const Exchange exchange = [this](const std::string& name, const std::string& text) {
    return rendezvous_->exchange(name, text);
  };
  devices_ = reach_devices(direct, settings_, exchange);
  std::vector<std::unique_ptr<SharedMemory>> shared = share_memory(settings_, exchange);
  for (int process = 0; process < settings_.processes; ++process)
    if (process != settings_.process) link_to(process, std::move(shared[static_cast<std::size_t>(process)]));
  start_links();
}

// Once all are there: one that ends at once has all others told.
void LinkedProcesses::start_links() {
  try {
    for (const auto& link : links_)
      if (link) link->start();
    heart_ = start_thread([this] { beat(); });
  } catch (...) {
    close_links();
    throw;
  }
}

// All, before any is gone: while one closes, another may still tell it of an abort.
void LinkedProcesses::close_links() {
  for (const auto& link : links_)
    if (link) link->close();
}

LinkTerms LinkedProcesses::terms_with(int process) const {
  const auto [first, end] = ranks_of_process(process, settings_.processes, settings_.ranks);
  return {hash_of(settings_.run_identity.data(), settings_.run_identity.size()),
          first.value,
          end.value,
          first_.value,
          end_.value,
          devices_ && devices_->reaches_any(first, end)};
}

void LinkedProcesses::link_to(int process, std::unique_ptr<SharedMemory> shared) {
  const LinkSettings link{process, terms_with(process), devices_.get()};
  const std::string name = name_of_process(process, settings_);
  SessionObserver observer;
  observer.on_abort = [this](const std::string& reason, bool peer_is_lost) {
    give_up(reason, peer_is_lost, /*tell_others=*/false);
  };
  observer.on_lost = [this, name](const std::string& reason) {
    give_up(fmt::format("{} is lost: {}", name, reason), /*peer_is_lost=*/true, /*tell_others=*/true);
  };
  observer.on_failed = [this, name](const std::string& reason) {
    abort(run_failed(fmt::format("a link to {} that failed with \"{}\"", name, reason), "room for its messages",
                     "where memory ran out, lower `width`, `context` or `batch`")
              .what());
  };
  observer.on_left = [this, name] {
    give_up(run_failed(name + " has ended its part of the run, and this one goes on",
                       "all processes to do the same steps", "let all end together")
                .what(),
            /*peer_is_lost=*/false, /*tell_others=*/false);
  };
  auto on_message = [this](const FrameAddress& address, MessageTensors message, std::function<bool()> wait) {
    put(address, std::move(message), std::move(wait));
  };
  auto control = std::make_unique<GlooChannel>(*group_, process, link.terms.run_identity);
  std::unique_ptr<Channel> data;
  // All ranks count, as if they shared this machine: if some run elsewhere, this end spins for less time than it could.
  const std::chrono::microseconds spin(static_cast<std::int64_t>(spin_us_for(settings_.ranks)));
  if (shared) data = std::make_unique<SharedMemoryChannel>(std::move(shared), link.terms.run_identity, spin);
  links_[static_cast<std::size_t>(process)] = std::make_unique<Link>(link, std::move(on_message), std::move(observer),
                                                                     std::move(control), std::move(data), clock_);
}

void LinkedProcesses::put(const FrameAddress& address, MessageTensors message, std::function<bool()> wait) {
  std::function<void()> wait_or_throw;
  if (wait)
    wait_or_throw = [this, wait = std::move(wait), from = address.from] {
      if (wait()) return;
      abort_.check_within(until_a_loss_shows);
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

// Often enough that one that comes late is not yet a sign of death.
void LinkedProcesses::beat() {
  constexpr double beats = 6;
  const auto interval = to_chrono({std::min(settings_.peer_timeout.count / beats, 5'000.0)});
  std::unique_lock lock(mutex_);
  while (!ending_changed_.wait_for(lock, interval, [this] { return ending_; })) {
    lock.unlock();
    for (const auto& link : links_) {
      if (!link) continue;
      link->session().heartbeat();
      link->session().check_heard(settings_.peer_timeout);
      link->session().check_left(longest_goodbye);
    }
    lock.lock();
  }
}

LinkedProcesses::~LinkedProcesses() {
  constexpr Milliseconds longest_after_abort{1'000};
  const auto deadline =
      std::chrono::steady_clock::now() + to_chrono(abort_.is_there() ? longest_after_abort : longest_goodbye);
  for (const auto& link : links_)
    if (link) link->session().say_goodbye();
  for (const auto& link : links_)
    if (link) link->session().wait_for_goodbye(deadline);
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  ending_changed_.notify_all();
  if (heart_.joinable()) heart_.join();
  close_links();
}

int LinkedProcesses::process_of(RankId rank) const {
  const auto guess = static_cast<int>(std::int64_t{rank.value} * settings_.processes / settings_.ranks);
  // Where ranks do not divide, a rank is at most one process further.
  return rank < ranks_of_process(guess, settings_.processes, settings_.ranks).second ? guess : guess + 1;
}

void LinkedProcesses::send(RankId from, RankId to, const Tag& tag, MessageTensors message) {
  if (is_own(to)) {
    inbox(to).put({from, tag}, std::move(message));
    return;
  }
  abort_.check();
  try {
    link_with(to).send({from.value, to.value, tag.channel, tag.microbatch, static_cast<std::uint8_t>(tag.kind)},
                       message);
  } catch (const Error& error) {
    // What no message holds is nobody's end, and all are to hear of it at once.
    if (error.kind() == ErrorKind::RunFailed) abort_.check_within(until_a_loss_shows);
    throw;
  }
}

void LinkedProcesses::give_up(const std::string& reason, bool peer_is_lost, bool tell_others) {
  if (!abort_.keep(reason, peer_is_lost)) return;
  for (Inbox& inbox : inboxes_) inbox.abort(reason, peer_is_lost);
  for (const auto& link : links_)
    if (link && tell_others) link->session().send_abort(reason, peer_is_lost);
  if (devices_) devices_->abort();
}

std::vector<std::string> LinkedProcesses::exchange(const std::string& name, const std::string& text) {
  if (!rendezvous_) return {text};
  return rendezvous_->exchange("given/" + name, text);
}

std::vector<LinkReport> LinkedProcesses::report() const {
  std::vector<LinkReport> reports;
  for (const auto& link : links_)
    if (link) reports.push_back(link->report());
  return reports;
}

// One rank's end of the transport.
class LinkedProcesses::End final : public Transport {
 public:
  End(LinkedProcesses& processes, RankId rank) : processes_(processes), rank_(rank), inbox_(processes.inbox(rank)) {}

  [[nodiscard]] RankId rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return processes_.settings_.ranks; }
  void send(RankId to, const Tag& tag, MessageTensors message) override {
    processes_.send(rank_, to, tag, std::move(message));
  }
  [[nodiscard]] MessageTensors receive(RankId from, const Tag& tag) override {
    const SenderAndTag address{from, tag};
    if (Link* link = processes_.link_of_only_rank(from))
      link->receive_until([&] { return inbox_.has_or_aborted(address); });
    ArrivedMessage message = inbox_.take(address, 0);
    last_arrival_ = message.at;
    if (message.wait) message.wait();
    return std::move(message.tensors);
  }
  [[nodiscard]] Milliseconds last_arrival() const override { return last_arrival_; }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override {
    if (Link* link = processes_.link_of_only_rank(from)) link->receive_ready();
    return inbox_.has({from, tag});
  }
  void abort(const std::string& reason) noexcept override { processes_.abort(reason); }

 private:
  LinkedProcesses& processes_;
  RankId rank_;
  Inbox& inbox_;
  Milliseconds last_arrival_;
};

std::vector<std::unique_ptr<Transport>> LinkedProcesses::take_ends() {
  std::vector<std::unique_ptr<Transport>> ends;
  for (RankId rank = first_; rank < end_; ++rank.value) ends.push_back(std::make_unique<End>(*this, rank));
  return ends;
}

}  // namespace penstock
