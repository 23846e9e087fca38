#include "transport/shared_memory/shared_memory_channel.h"

#include <utility>

#include "penstock/base/thread.h"

namespace penstock {
namespace {

// Waits a little at a time: the other may be gone.
constexpr std::chrono::milliseconds between_looks{50};

// What was sent is freed on another thread, which is woken for so many.
constexpr std::size_t spent_together = 8;

}  // namespace

SharedMemoryChannel::SharedMemoryChannel(std::unique_ptr<SharedMemory> memory, std::uint64_t run_identity,
                                         std::chrono::microseconds spin)
    : memory_(std::move(memory)),
      spin_(spin),
      writer_(run_identity),
      out_(memory_->outgoing()),
      in_(memory_->incoming()),
      frame_(largest_frame_bytes) {}

SharedMemoryChannel::~SharedMemoryChannel() { SharedMemoryChannel::close(); }

void SharedMemoryChannel::start(FrameSink& sink) {
  sink_ = &sink;
  write_thread_ = start_thread([this] { guarded(&SharedMemoryChannel::write_queue); });
  read_thread_ = start_thread([this] { guarded(&SharedMemoryChannel::read); });
}

bool SharedMemoryChannel::send(Outgoing outgoing, Place place) {
  bool wakes = false;
  {
    const std::scoped_lock lock(mutex_);
    if (stopped_) return false;
    writer_.begin(outgoing);
    bool more = true;
    while (more && queue_.empty() && !out_.room().empty()) more = write_frame(outgoing);
    if (more)
      enqueue(queue_, std::move(outgoing), place);
    else
      spent_.push_back(std::move(outgoing));
    wakes = more || spent_.size() >= spent_together;
  }
  if (wakes) changed_.notify_all();
  return true;
}

// With the lock held and room in the ring. Whether more is to be sent.
bool SharedMemoryChannel::write_frame(Outgoing& outgoing) {
  const std::span<std::byte> into = out_.room();
  const std::size_t end = writer_.write(outgoing, into);
  out_.publish(end);
  ++counts_.frames;
  counts_.bytes += Bytes{static_cast<std::int64_t>(end)};
  return outgoing.has_more();
}

// The writing thread's work.
void SharedMemoryChannel::write_queue() {
  std::vector<Outgoing> spent;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopped_ || !queue_.empty() || spent_.size() >= spent_together; });
    if (stopped_) return;
    while (!queue_.empty() && !out_.room().empty()) {
      if (write_frame(queue_.front())) continue;
      spent_.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    spent.swap(spent_);
    const bool full = !queue_.empty();
    lock.unlock();
    spent.clear();
    if (full)
      out_.wait_for_room(between_looks);
    else
      changed_.notify_all();
    lock.lock();
  }
}

// With the lock of the reading. Whether there was a frame.
bool SharedMemoryChannel::take_frame() {
  try {
    const std::size_t bytes = in_.take(frame_);
    if (bytes == 0) return false;
    if (!sink_->take(std::span(frame_).first(bytes))) ended_ = true;
  } catch (...) {
    ended_ = true;
    sink_->ended(std::current_exception());
  }
  return true;
}

// The reading thread's work. Leaves the frames to a rank that waits for them, or has lately: it will again.
void SharedMemoryChannel::read() {
  constexpr std::chrono::milliseconds lately{1};
  std::uint64_t waits_seen = 0;
  while (!closing_ && !ended_) {
    std::unique_lock lock(reading_);
    const std::uint64_t waits_before = std::exchange(waits_seen, waits_of_rank_.load());
    if (waits_seen != waits_before) {
      lock.unlock();
      std::this_thread::sleep_for(lately);
      continue;
    }
    if (take_frame()) continue;
    lock.unlock();
    in_.wait_for_frame(between_looks);
    // This thread may have been woken in the place of a rank that has come to wait since.
    if (!lock.try_lock()) in_.wake();
  }
}

void SharedMemoryChannel::receive_until(const std::function<bool()>& done) {
  // An abort does not come through the memory: it is looked for from time to time.
  constexpr std::chrono::milliseconds between_looks_of_rank{5};
  ++waits_of_rank_;
  const std::scoped_lock lock(reading_);
  for (bool spins = true; !done() && !closing_ && !ended_;) {
    if (take_frame() || (std::exchange(spins, false) && in_.spin_for_frame(spin_))) continue;
    in_.wait_for_frame(between_looks_of_rank);
  }
}

void SharedMemoryChannel::receive_ready() {
  const std::scoped_lock lock(reading_);
  while (!ended_ && take_frame()) {
  }
}

void SharedMemoryChannel::guarded(void (SharedMemoryChannel::*work)()) {
  try {
    (this->*work)();
  } catch (...) {
    sink_->ended(std::current_exception());
  }
}

void SharedMemoryChannel::wait_until_sent(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return stopped_ || queue_.empty(); });
}

void SharedMemoryChannel::stop() {
  {
    const std::scoped_lock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

// Perhaps before all threads were made.
void SharedMemoryChannel::close() {
  stop();
  closing_ = true;
  in_.wake();
  out_.wake();
  for (std::thread* thread : {&read_thread_, &write_thread_})
    if (thread->joinable()) thread->join();
}

ChannelCounts SharedMemoryChannel::counts() const {
  const std::scoped_lock lock(mutex_);
  ChannelCounts counts = counts_;
  counts.waits = !queue_.empty();
  return counts;
}

}  // namespace penstock
