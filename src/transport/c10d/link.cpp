#include "transport/c10d/link.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "penstock/base/error.h"
#include "penstock/base/thread.h"

#include "transport/c10d/wire_dtype.h"
#include "transport/c10d/wire_tensor.h"

namespace penstock {
namespace {

// So many frames stand ready to be received and are on their way out at most: together 1 MiB, more than what a link of
// 100 Mbit/s holds in 50 ms.
constexpr std::size_t window = 8;

// All frames of a link use one tag of the process group: it keeps their order.
constexpr int frame_tag = 0;

// Gloo closes every connection of a process when one wait has been too long: who is silent is found out here instead.
constexpr std::chrono::milliseconds for_ever = std::chrono::hours(24 * 365);

// Copies a part of a message, given by its offset in the bytes of all tensors together, to or from them.
template <typename Copy>
void for_each_piece(const std::vector<at::Tensor>& tensors, std::uint64_t offset, std::size_t count, Copy copy) {
  std::size_t done = 0;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    const auto bytes = static_cast<std::uint64_t>(tensor.nbytes());
    if (offset >= bytes) {
      offset -= bytes;
      continue;
    }
    if (done == count) return;
    const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(bytes - offset, count - done));
    copy(static_cast<std::byte*>(tensor.data_ptr()) + offset, done, piece);
    done += piece;
    offset = 0;
  }
}

// What comes in frames. The other would refuse what is beyond the largest.
std::uint64_t checked_bytes(const Layouts& layouts, std::uint64_t most) {
  const auto in_frames = bytes_of(layouts, /*on_device=*/false, most);
  if (!in_frames || !bytes_of(layouts, /*on_device=*/true, most))
    throw bad_input(fmt::format("a message of more than {} bytes between processes", most),
                    "less, from the first element of each tensor to its last",
                    "use more microbatches, or let the layer return contiguous tensors");
  return in_frames->in_transit;
}

// What a process group throws, whatever it is, says that the other has closed its end.
struct ConnectionClosed : std::exception {};

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
struct Link::Buffer {
  std::vector<std::byte> bytes = std::vector<std::byte>(largest_frame_bytes);

  std::vector<at::Tensor> view(std::size_t size) {
    return {at::from_blob(bytes.data(), {static_cast<std::int64_t>(size)}, at::TensorOptions().dtype(at::kByte))};
  }
};

// Messages through shared memory: the ring is written by whoever sends, or by the writer what had to wait for room.
struct Link::Shared {
  Shared(std::unique_ptr<SharedMemory> shared, const LinkTerms& terms)
      : memory(std::move(shared)),
        frames(terms.run_identity),
        out(memory->outgoing()),
        in(memory->incoming()),
        reader_of_frames(terms),
        frame(largest_frame_bytes) {}

  std::unique_ptr<SharedMemory> memory;
  FrameWriter frames;  // with the link's lock, as what follows
  SharedRing out;
  std::deque<Outgoing> queue;
  std::mutex reading;  // guards what follows, but for waits
  SharedRing in;
  FrameReader reader_of_frames;
  Arriving arriving;
  std::vector<std::byte> frame;  // a copy of one's own: what is checked must not change afterwards
  std::atomic<std::uint64_t> waits_of_rank{0};
  std::atomic<bool> ended{false};
  std::atomic<bool> stopping{false};
  std::thread writer;
  std::thread reader;
};

Link::Link(c10d::Backend& group, const LinkSettings& settings, LinkObserver observer,
           std::unique_ptr<SharedMemory> shared)
    : group_(group), settings_(settings), observer_(std::move(observer)), writer_(settings.terms.run_identity) {
  report_.process = settings.process;
  for (std::size_t buffer = 0; buffer < window; ++buffer) {
    free_.push_back(std::make_unique<Buffer>());
    incoming_.push_back(std::make_unique<Buffer>());
    auto view = incoming_.back()->view(largest_frame_bytes);
    receives_.push_back(group_.recv(view, settings_.process, frame_tag));
  }
  try {
    pump_ = start_thread([this] { guarded(&Link::pump); });
    receiver_ = start_thread([this] { guarded(&Link::receive); });
    if (!shared) return;
    shared_ = std::make_unique<Shared>(std::move(shared), settings.terms);
    shared_->writer = start_thread([this] { guarded(&Link::write_shared); });
    shared_->reader = start_thread([this] { guarded(&Link::read_shared); });
  } catch (...) {
    end();
    throw;
  }
}

Link::~Link() { end(); }

// Perhaps before all threads were made.
void Link::end() {
  std::vector<c10::intrusive_ptr<c10d::Work>> waits;
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
    waits = receives_;
    if (waited_for_) waits.push_back(waited_for_);
  }
  changed_.notify_all();
  if (shared_) {
    shared_->stopping = true;
    shared_->in.wake();
    shared_->out.wake();
    for (std::thread* thread : {&shared_->reader, &shared_->writer})
      if (thread->joinable()) thread->join();
  }
  for (const auto& work : waits) {
    try {
      work->abort();
    } catch (const std::exception&) {
      // The process group has ended it already.
      continue;
    }
  }
  for (std::thread* thread : {&receiver_, &pump_})
    if (thread->joinable()) thread->join();
}

void Link::send(const FrameAddress& address, const std::vector<at::Tensor>& tensors) {
  const std::optional<at::Device> device =
      settings_.direct == nullptr ? std::nullopt : settings_.direct->device_between({address.from}, {address.to});
  Outgoing outgoing;
  outgoing.frame.kind = FrameKind::Message;
  outgoing.frame.address = address;
  outgoing.layouts = layouts_of(tensors, device);
  outgoing.frame.message_bytes = checked_bytes(outgoing.layouts, settings_.terms.largest_message_bytes);
  outgoing.tensors.reserve(tensors.size());
  std::vector<at::Tensor> direct;
  for (std::size_t index = 0; index < tensors.size(); ++index) {
    const bool on_device = outgoing.layouts[index].on_device;
    at::Tensor goes = for_wire(tensors[index], outgoing.layouts[index], !on_device);
    if (on_device) {
      direct.push_back(std::move(goes));
      outgoing.tensors.emplace_back();
      continue;
    }
    if (!goes.is_same(tensors[index])) outgoing.originals.push_back(tensors[index]);
    outgoing.tensors.push_back(std::move(goes));
  }
  const bool goes = shared_ ? enqueue_shared(std::move(outgoing)) : enqueue(std::move(outgoing), /*in_front=*/false);
  // Behind the frame, from which the other learns that it has to receive.
  if (goes && !direct.empty()) send_direct(address, direct);
}

void Link::send_direct(const FrameAddress& address, const std::vector<at::Tensor>& tensors) {
  Bytes bytes;
  for (const at::Tensor& tensor : tensors) bytes += Bytes{static_cast<std::int64_t>(tensor.nbytes())};
  settings_.direct->channel({address.from}, {address.to}).send(tensors);
  const std::scoped_lock lock(mutex_);
  report_.sent += bytes;
}

void Link::send_abort(const std::string& reason, bool peer_is_lost) {
  Outgoing outgoing;
  outgoing.frame.kind = peer_is_lost ? FrameKind::Lost : FrameKind::Abort;
  outgoing.reason = reason.substr(0, largest_frame_bytes / 2);
  enqueue(std::move(outgoing), /*in_front=*/true);
}

void Link::heartbeat() {
  {
    const std::scoped_lock lock(mutex_);
    const bool silent = std::exchange(frames_at_heartbeat_, frames_) == frames_;
    if (!silent || !queue_.empty()) return;
  }
  enqueue({}, /*in_front=*/false);
}

void Link::check_heard(Milliseconds peer_timeout) {
  const std::chrono::duration<double, std::milli> silent = std::chrono::steady_clock::now() - heard_.load();
  if (silent.count() > peer_timeout.count)
    lose(fmt::format("it has said nothing for {:.1f} s", peer_timeout.count / 1000));
}

void Link::say_goodbye() {
  Outgoing outgoing;
  outgoing.frame.kind = FrameKind::Goodbye;
  enqueue(std::move(outgoing), /*in_front=*/false);
  {
    const std::scoped_lock lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
}

void Link::wait_for_goodbye(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] {
    return lost_ || (said_goodbye_ && queue_.empty() && under_way_.empty() && (!shared_ || shared_->queue.empty()));
  });
}

LinkReport Link::report() const {
  const std::scoped_lock lock(mutex_);
  return report_;
}

// Whether layouts go with it is decided in the order of the messages, which is that of the calls.
void Link::count_message(Outgoing& outgoing) {
  outgoing.frame.with_layouts = !sent_layouts_.same_as_last(outgoing.frame.address, outgoing.layouts);
  ++report_.messages_sent;
}

bool Link::enqueue_shared(Outgoing outgoing) {
  bool wakes = false;
  {
    const std::scoped_lock lock(mutex_);
    if (lost_ || ending_) return false;
    count_message(outgoing);
    bool more = true;
    while (more && shared_->queue.empty() && !shared_->out.room().empty()) more = share_frame(outgoing);
    // What was sent is freed on another thread, which is not woken for each.
    if (more)
      shared_->queue.push_back(std::move(outgoing));
    else
      spent_.push_back(std::move(outgoing));
    wakes = more || spent_.size() >= window;
  }
  if (wakes) changed_.notify_all();
  return true;
}

// With the lock held and room in the ring. Whether more is to be sent.
bool Link::share_frame(Outgoing& outgoing) {
  const std::span<std::byte> into = shared_->out.room();
  const std::size_t end = fill(shared_->frames, outgoing, into);
  shared_->out.publish(end);
  report_.sent += Bytes{static_cast<std::int64_t>(end)};
  return outgoing.has_more();
}

// Waits for room, a little at a time: the other may be gone.
constexpr std::chrono::milliseconds between_looks{50};

void Link::write_shared() {
  std::vector<Outgoing> spent;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || lost_ || !shared_->queue.empty() || spent_.size() >= window; });
    if (ending_ || lost_) return;
    while (!shared_->queue.empty() && !shared_->out.room().empty()) {
      if (share_frame(shared_->queue.front())) continue;
      spent_.push_back(std::move(shared_->queue.front()));
      shared_->queue.pop_front();
    }
    spent.swap(spent_);
    const bool full = !shared_->queue.empty();
    lock.unlock();
    spent.clear();
    if (full)
      shared_->out.wait_for_room(between_looks);
    else
      changed_.notify_all();
    lock.lock();
  }
}

// With the lock of the reading. Whether there was a frame.
bool Link::take_shared() {
  Shared& shared = *shared_;
  try {
    const std::size_t bytes = shared.in.take(shared.frame);
    if (bytes == 0) return false;
    heard_ = std::chrono::steady_clock::now();
    if (!take(shared.reader_of_frames.read(std::span(shared.frame).first(bytes)), shared.arriving)) shared.ended = true;
  } catch (...) {
    shared.ended = true;
    end_with_exception();
  }
  return true;
}

// Leaves the frames to a rank that waits for them, or has lately: it will again.
void Link::read_shared() {
  constexpr std::chrono::milliseconds lately{1};
  Shared& shared = *shared_;
  std::uint64_t waits_seen = 0;
  while (!shared.stopping && !shared.ended) {
    std::unique_lock lock(shared.reading);
    const std::uint64_t waits_before = std::exchange(waits_seen, shared.waits_of_rank.load());
    if (waits_seen != waits_before) {
      lock.unlock();
      std::this_thread::sleep_for(lately);
      continue;
    }
    if (take_shared()) continue;
    lock.unlock();
    shared.in.wait_for_frame(between_looks);
    // This thread may have been woken in the place of a rank that has come to wait since.
    if (!lock.try_lock()) shared.in.wake();
  }
}

void Link::receive_until(const std::function<bool()>& done) {
  // An abort does not come through the memory: it is looked for from time to time.
  constexpr std::chrono::milliseconds between_looks_of_rank{5};
  if (!shared_ || settings_.direct != nullptr) return;
  Shared& shared = *shared_;
  ++shared.waits_of_rank;
  const std::scoped_lock lock(shared.reading);
  for (bool spins = true; !done() && !shared.stopping && !shared.ended;) {
    if (take_shared() || (std::exchange(spins, false) && shared.in.spin_for_frame(settings_.spin))) continue;
    shared.in.wait_for_frame(between_looks_of_rank);
  }
}

void Link::receive_ready() {
  if (!shared_ || settings_.direct != nullptr) return;
  const std::scoped_lock lock(shared_->reading);
  while (!shared_->ended && take_shared()) {
  }
}

bool Link::enqueue(Outgoing outgoing, bool in_front) {
  {
    const std::scoped_lock lock(mutex_);
    if (lost_ || ending_) return false;
    if (outgoing.frame.kind == FrameKind::Message) count_message(outgoing);
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
    // The rest of a message that is under way stays together.
    const bool under_way = !queue_.empty() && queue_.front().frame.kind == FrameKind::Continuation;
    queue_.insert(in_front ? queue_.begin() + (under_way ? 1 : 0) : queue_.end(), std::move(outgoing));
  }
  changed_.notify_all();
  return true;
}

// Writes the next frame of it. Where the frame ends.
std::size_t Link::fill(FrameWriter& writer, Outgoing& outgoing, std::span<std::byte> into) {
  const std::size_t begin = writer.begin(outgoing.frame, outgoing.layouts, into);
  std::size_t end = begin;
  if (!outgoing.reason.empty()) {
    std::memcpy(into.data() + begin, outgoing.reason.data(), outgoing.reason.size());
    end += outgoing.reason.size();
  }
  const bool more_layouts = FrameWriter::has_more_layouts(outgoing.frame, outgoing.layouts);
  const auto part = more_layouts ? 0
                                 : static_cast<std::size_t>(std::min<std::uint64_t>(
                                       outgoing.frame.message_bytes - outgoing.sent, largest_frame_bytes - begin));
  for_each_piece(outgoing.tensors, outgoing.sent, part, [&](const std::byte* from, std::size_t at, std::size_t count) {
    std::memcpy(into.data() + begin + at, from, count);
  });
  end += part;
  FrameWriter::finish(into, begin, end);
  outgoing.sent += part;
  outgoing.frame.kind = outgoing.frame.kind == FrameKind::Message ? FrameKind::Continuation : outgoing.frame.kind;
  outgoing.frame.with_layouts = more_layouts;
  return end;
}

// Sends the next frame of it, with the lock held and a free buffer. Whether more is to be sent.
bool Link::send_frame(Outgoing& outgoing) {
  std::unique_ptr<Buffer> buffer = std::move(free_.back());
  free_.pop_back();
  const std::size_t end = fill(writer_, outgoing, buffer->bytes);
  auto view = buffer->view(end);
  auto work = on_connection([&] { return group_.send(view, settings_.process, frame_tag); });
  under_way_.emplace_back(std::move(work), std::move(buffer));
  ++frames_;
  report_.sent += Bytes{static_cast<std::int64_t>(end)};
  return outgoing.has_more();
}

// Takes back the buffers of what has been sent, and sends what had to wait for them.
void Link::pump() {
  // By then the receiving thread has said why, if it can.
  constexpr std::chrono::seconds longest_silence{1};
  std::vector<Outgoing> spent;
  std::unique_lock lock(mutex_);
  for (;;) {
    // While buffers are plenty nobody waits for one: the thread sleeps on.
    changed_.wait(lock, [this] {
      return ending_ || lost_ || unsendable_ || !queue_.empty() || free_.size() < window / 2 ||
             (closing_ && !under_way_.empty());
    });
    if (unsendable_) changed_.wait_for(lock, longest_silence, [this] { return ending_ || lost_; });
    if (lost_ || ending_) return;
    if (unsendable_) throw ConnectionClosed();
    if (!under_way_.empty()) {
      auto [work, buffer] = std::move(under_way_.front());
      under_way_.pop_front();
      waited_for_ = work;
      lock.unlock();
      const bool done = on_connection([&work = work] { return work->wait(for_ever); });
      lock.lock();
      waited_for_.reset();
      if (!done) return;  // aborted: this link ends
      free_.push_back(std::move(buffer));
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

void Link::receive() {
  FrameReader reader(settings_.terms);
  Arriving arriving;
  for (std::size_t next = 0;; next = (next + 1) % window) {
    if (!on_connection([&] { return receives_[next]->wait(for_ever); })) return;  // aborted: this link ends
    heard_ = std::chrono::steady_clock::now();
    if (!take(reader.read(incoming_[next]->bytes), arriving)) return;
    auto view = incoming_[next]->view(largest_frame_bytes);
    const std::scoped_lock lock(mutex_);
    if (ending_) return;  // nobody would abort this receive any more
    receives_[next] = on_connection([&] { return group_.recv(view, settings_.process, frame_tag); });
  }
}

bool Link::take(const Incoming& incoming, Arriving& arriving) {
  switch (incoming.kind) {
    case FrameKind::Heartbeat:
      return true;
    case FrameKind::Abort:
    case FrameKind::Lost:
      observer_.on_abort(
          std::string(reinterpret_cast<const char*>(incoming.bytes.data()), incoming.bytes.size()),  // NOLINT
          incoming.kind == FrameKind::Lost);
      return true;
    case FrameKind::Goodbye: {
      const std::scoped_lock lock(mutex_);
      said_goodbye_ = true;
      changed_.notify_all();
      return false;
    }
    case FrameKind::Message:
    case FrameKind::Continuation:
      break;
  }
  if (incoming.first) arriving = begin_message(incoming);
  for_each_piece(arriving.tensors, incoming.offset, incoming.bytes.size(),
                 [&](std::byte* into, std::size_t at, std::size_t count) {
                   std::memcpy(into, incoming.bytes.data() + at, count);
                 });
  {
    const std::scoped_lock lock(mutex_);
    report_.received += Bytes{static_cast<std::int64_t>(frame_header_bytes + incoming.bytes.size())};
    report_.messages_received += incoming.last ? 1 : 0;
  }
  if (incoming.last) finish_message(*incoming.layouts, arriving);
  return true;
}

void Link::finish_message(const Layouts& layouts, Arriving& arriving) {
  auto direct = arriving.direct.tensors.begin();
  for (std::size_t index = 0; index < arriving.tensors.size(); ++index) {
    const TensorLayout& layout = layouts[index];
    at::Tensor& tensor = arriving.tensors[index];
    if (layout.on_device) {
      tensor = std::move(*direct++);
    } else if (!layout.strides.empty()) {
      const UncountedScope uncounted;
      tensor = landed(layout, tensor);
    }
    if (layout.takes_gradient) tensor.requires_grad_();
  }
  observer_.on_message(arriving.address, std::exchange(arriving.tensors, {}), std::exchange(arriving.direct.wait, {}));
}

// What comes from device to device is received at once, in the order of the frames, whatever is asked for first.
Link::Arriving Link::begin_message(const Incoming& incoming) {
  const FrameAddress& address = incoming.address;
  Arriving arriving{address, landings_for(*incoming.layouts), {}};
  if (!std::ranges::any_of(*incoming.layouts, &TensorLayout::on_device)) return arriving;
  if (!settings_.direct->device_between({address.from}, {address.to}))
    throw run_failed(fmt::format("a tensor on a device from rank {} to rank {}", address.from, address.to),
                     "its bytes in frames", "start every process of the run with the same penstock");
  arriving.direct = settings_.direct->channel({address.from}, {address.to}).receive(*incoming.layouts);
  Bytes bytes;
  for (const at::Tensor& tensor : arriving.direct.tensors) bytes += Bytes{static_cast<std::int64_t>(tensor.nbytes())};
  const std::scoped_lock lock(mutex_);
  report_.received += bytes;
  return arriving;
}

void Link::lose(const std::string& reason) { end_with(observer_.on_lost, reason); }

void Link::end_with(const std::function<void(const std::string&)>& notify, const std::string& reason) {
  {
    const std::scoped_lock lock(mutex_);
    if (lost_ || ending_ || said_goodbye_) return;
    lost_ = true;
  }
  changed_.notify_all();
  notify(reason);
}

void Link::guarded(void (Link::*work)()) {
  try {
    (this->*work)();
  } catch (...) {
    end_with_exception();
  }
}

// The other's fault are only frames that are refused, and that it is gone. Whoever waits must hear of all else too.
void Link::end_with_exception() {
  try {
    throw;
  } catch (const ConnectionClosed&) {
    lose("its connection is closed");
  } catch (const Error& error) {
    lose(error.what());
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    end_with(observer_.on_failed, reason.substr(0, reason.find('\n')));
  } catch (const std::exception& error) {
    end_with(observer_.on_failed, error.what());
  } catch (...) {
    end_with(observer_.on_failed, "an unknown exception");
  }
}

}  // namespace penstock
