#include "transport/gloo/gloo_channel.h"

#include <cstddef>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/thread.h"

namespace penstock {
namespace {

// So many frames stand ready to be received and are on their way out at most: together 1 MiB, more than what a link of
// 100 Mbit/s holds in 50 ms.
constexpr std::size_t window = 8;

// All frames of a channel use one tag of the process group: it keeps their order.
constexpr int frame_tag = 0;

// Gloo closes every connection of a process when one wait has been too long: the session finds out who is silent.
constexpr std::chrono::milliseconds for_ever = std::chrono::hours(24 * 365);

// What a process group throws, whatever it is, says that the other has closed its end.
template <typename Call>
auto on_connection(Call call) {
  try {
    return call();
  } catch (const std::exception&) {
    throw ConnectionClosed();
  }
}

}  // namespace

// A frame's memory, which the process group sees as a tensor.
struct GlooChannel::Buffer {
  std::vector<std::byte> bytes = std::vector<std::byte>(largest_frame_bytes);

  std::vector<at::Tensor> view(std::size_t size) {
    return {at::from_blob(bytes.data(), {static_cast<std::int64_t>(size)}, at::TensorOptions().dtype(at::kByte))};
  }
};

GlooChannel::GlooChannel(c10d::Backend& group, int other, std::uint64_t run_identity)
    : group_(group), other_(other), writer_(run_identity) {
  for (std::size_t buffer = 0; buffer < window; ++buffer) {
    free_.push_back(std::make_unique<Buffer>());
    incoming_.push_back(std::make_unique<Buffer>());
  }
}

GlooChannel::~GlooChannel() { GlooChannel::close(); }

void GlooChannel::start(FrameSink& sink) {
  sink_ = &sink;
  for (const auto& buffer : incoming_) {
    auto view = buffer->view(largest_frame_bytes);
    receives_.push_back(group_.recv(view, other_, frame_tag));
  }
  sender_ = start_thread([this] { guarded(&GlooChannel::send_queue); });
  receiver_ = start_thread([this] { guarded(&GlooChannel::receive); });
}

bool GlooChannel::send(Outgoing outgoing, Place place) {
  {
    const std::scoped_lock lock(mutex_);
    if (stopped_) return false;
    writer_.begin(outgoing);
    if (queue_.empty()) {
      try {
        while (!free_.empty()) {
          if (send_frame(outgoing)) continue;
          spent_.push_back(std::move(outgoing));
          return true;
        }
      } catch (const ConnectionClosed&) {
        unsendable_ = true;
        changed_.notify_all();
        return false;
      }
    }
    enqueue(queue_, std::move(outgoing), place);
  }
  changed_.notify_all();
  return true;
}

// Sends the next frame of it, with the lock held and a free buffer. Whether more is to be sent.
bool GlooChannel::send_frame(Outgoing& outgoing) {
  std::unique_ptr<Buffer> buffer = std::move(free_.back());
  free_.pop_back();
  const std::size_t end = writer_.write(outgoing, buffer->bytes);
  auto view = buffer->view(end);
  auto work = on_connection([&] { return group_.send(view, other_, frame_tag); });
  under_way_.push_back({std::move(buffer), std::move(work)});
  ++counts_.frames;
  counts_.bytes += Bytes{static_cast<std::int64_t>(end)};
  return outgoing.has_more();
}

// The sending thread's work.
void GlooChannel::send_queue() {
  // By then the receiving thread has said why, if it can.
  constexpr std::chrono::seconds longest_silence{1};
  std::vector<Outgoing> spent;
  std::unique_lock lock(mutex_);
  for (;;) {
    // While buffers are plenty nobody waits for one: the thread sleeps on.
    changed_.wait(lock, [this] {
      return stopped_ || unsendable_ || !queue_.empty() || free_.size() < window / 2 ||
             (awaited_ && !under_way_.empty());
    });
    if (unsendable_) changed_.wait_for(lock, longest_silence, [this] { return stopped_; });
    if (stopped_) return;
    if (unsendable_) throw ConnectionClosed();
    if (!under_way_.empty()) {
      waited_for_ = under_way_.front().work;
      lock.unlock();
      const bool done = on_connection([this] { return waited_for_->wait(for_ever); });
      lock.lock();
      waited_for_.reset();
      if (!done) return;  // aborted: this channel is being closed
      free_.push_back(std::move(under_way_.front().buffer));
      under_way_.pop_front();
    }
    while (!queue_.empty() && !free_.empty()) {
      if (!send_frame(queue_.front())) {
        spent_.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    spent.swap(spent_);
    lock.unlock();
    spent.clear();
    lock.lock();
    if (queue_.empty()) changed_.notify_all();
  }
}

void GlooChannel::receive() {
  for (std::size_t next = 0;; next = (next + 1) % window) {
    if (!on_connection([&] { return receives_[next]->wait(for_ever); }))
      return;  // aborted: this channel is being closed
    if (!sink_->take(incoming_[next]->bytes)) return;
    auto view = incoming_[next]->view(largest_frame_bytes);
    const std::scoped_lock lock(mutex_);
    if (closed_) return;  // nobody would abort this receive any more
    receives_[next] = on_connection([&] { return group_.recv(view, other_, frame_tag); });
  }
}

void GlooChannel::guarded(void (GlooChannel::*work)()) {
  try {
    (this->*work)();
  } catch (...) {
    sink_->ended(std::current_exception());
  }
}

void GlooChannel::wait_until_sent(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  awaited_ = true;
  changed_.notify_all();
  changed_.wait_until(lock, deadline, [this] { return stopped_ || (queue_.empty() && under_way_.empty()); });
}

void GlooChannel::stop() {
  {
    const std::scoped_lock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

// Perhaps before all threads were made.
void GlooChannel::close() {
  std::vector<c10::intrusive_ptr<c10d::Work>> waits;
  {
    const std::scoped_lock lock(mutex_);
    stopped_ = true;
    if (!std::exchange(closed_, true)) waits = receives_;
    if (waited_for_) waits.push_back(waited_for_);
  }
  changed_.notify_all();
  for (const auto& work : waits) {
    try {
      work->abort();
    } catch (const std::exception&) {
      // The process group has ended it already.
      continue;
    }
  }
  for (std::thread* thread : {&receiver_, &sender_})
    if (thread->joinable()) thread->join();
}

ChannelCounts GlooChannel::counts() const {
  const std::scoped_lock lock(mutex_);
  ChannelCounts counts = counts_;
  counts.waits = !queue_.empty();
  return counts;
}

}  // namespace penstock
