#include "transport/device/direct.h"

#include <chrono>
#include <cstdint>
#include <fmt/format.h>
#include <system_error>
#include <thread>

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "penstock/base/error.h"

#include "transport/link/wire_tensor.h"
#include "transport/strided_tensor.h"

namespace penstock {
namespace {

using c10::impl::VirtualGuardImpl;

constexpr int sender = 0;
constexpr int receiver = 1;
// All of a channel's messages use one tag of its group: it keeps their order.
constexpr int only_tag = 0;

Error not_reached(const std::string& reason) {
  return run_failed(reason.substr(0, reason.find('\n')), "devices of two processes that reach each other",
                    "set NCCL_DEBUG=INFO to see why; `devices` names what each rank uses");
}

// libtorch's own exceptions carry a backtrace.
template <typename Call>
auto with_own_errors(Call call) {
  try {
    return call();
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw not_reached(error.what_without_backtrace());
  } catch (const std::exception& error) {
    throw not_reached(error.what());
  }
}

// What a group sends and receives, whatever the type: NCCL does not have all of them.
// \param dense in the order of its memory
std::vector<at::Tensor> as_bytes(const at::Tensor& dense) {
  return {dense.detach().as_strided({dense.numel()}, {1}, dense.storage_offset()).view(at::kByte)};
}

}  // namespace

DirectChannel::DirectChannel(const DirectBackend& backend, const c10::intrusive_ptr<c10d::Store>& store, int member,
                             at::Device device)
    : group_(with_own_errors([&] { return backend.make(store, member); })), device_(device) {
  if (!device.is_cpu()) stream_ = VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

DirectChannel::~DirectChannel() {
  try {
    if (!aborted_) group_->shutdown();
  } catch (const std::exception&) {
    // The other is gone: nothing is left to be shut down with it.
    return;
  }
}

void DirectChannel::send(const std::vector<at::Tensor>& tensors) {
  let_go_of_sent();
  with_own_errors([&] {
    for (const at::Tensor& tensor : tensors) {
      std::vector<at::Tensor> bytes = as_bytes(tensor);
      sending_.push_back({group_->send(bytes, receiver, only_tag), tensor});
    }
  });
}

void DirectChannel::let_go_of_sent() {
  while (!sending_.empty() && sending_.front().work->isCompleted()) sending_.pop_front();
}

ExpectedTensors DirectChannel::receive(const Layouts& layouts) {
  ExpectedTensors expected;
  std::vector<at::Tensor> landings;
  std::vector<std::pair<at::Tensor, at::Tensor>> with_gaps;  // their memory, and what lands
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  with_own_errors([&] {
    const c10::OptionalStreamGuard own_stream(stream_);
    for (const TensorLayout& layout : layouts) {
      if (!layout.on_device) continue;
      const at::Tensor& landing = landings.emplace_back(landing_for(layout, device_));
      const at::Tensor room = room_with_gaps(layout, device_);
      // Detached: what is received may be to require its gradient before it is here.
      if (room.defined()) with_gaps.emplace_back(room.detach(), landing);
      const at::Tensor& memory = room.defined() ? room : landing;
      expected.tensors.push_back(layout.strides.empty() ? memory : as_layout(memory, layout.sizes, layout.strides));
      std::vector<at::Tensor> bytes = as_bytes(landing);
      works.push_back(group_->recv(bytes, sender, only_tag));
    }
  });
  {
    const std::scoped_lock lock(mutex_);
    if (aborted_)
      for (const auto& work : works) work->abort();
    receiving_.insert(receiving_.end(), works.begin(), works.end());
  }
  expected.wait = [this, works = std::move(works), tensors = expected.tensors, landings = std::move(landings),
                   with_gaps = std::move(with_gaps)]() mutable {
    bool all_here = true;
    try {
      for (const auto& work : works) all_here = work->wait() && all_here;
    } catch (const std::exception&) {
      all_here = false;
    }
    if (stream_) {
      // The allocator must not hand their memory out again before that stream has done with it.
      const VirtualGuardImpl device(device_.type());
      for (const auto* used : {&tensors, &landings})
        for (const at::Tensor& tensor : *used)
          device.recordDataPtrOnStream(tensor.storage().data_ptr(), device.getStream(device_));
    }
    for (const auto& [room, landing] : with_gaps)
      if (all_here) room.copy_(landing);
    {
      const UncountedScope uncounted;
      with_gaps.clear();
      landings.clear();
    }
    const std::scoped_lock lock(mutex_);
    for (const auto& work : works) std::erase(receiving_, work);
    return all_here && !aborted_;
  };
  return expected;
}

void DirectChannel::abort() {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(aborted_, true)) return;
    works = receiving_;
  }
  try {
    for (const auto& work : works) work->abort();
    group_->abort();
  } catch (const std::exception&) {
    // The group has ended itself already.
    return;
  }
}

DirectChannels::DirectChannels(DirectBackend backend, OpenStore open_store, std::vector<std::string> identities,
                               std::vector<at::Device> devices, RankId first)
    : backend_(std::move(backend)),
      open_store_(std::move(open_store)),
      identities_(std::move(identities)),
      devices_(std::move(devices)),
      first_(first) {}

bool DirectChannels::is_own(RankId rank) const {
  return rank >= first_ && rank.index() < first_.index() + devices_.size();
}

bool DirectChannels::reaches_any(RankId begin, RankId end) const {
  for (RankId other = begin; other < end; ++other.value)
    for (std::size_t own = 0; own < devices_.size(); ++own)
      if (device_between({first_.value + static_cast<std::int32_t>(own)}, other)) return true;
  return false;
}

std::optional<at::Device> DirectChannels::device_between(RankId from, RankId to) const {
  const std::string& sender_identity = identities_[from.index()];
  const std::string& receiver_identity = identities_[to.index()];
  // NCCL has no way between two members on one device.
  if (sender_identity.empty() || receiver_identity.empty() || sender_identity == receiver_identity) return std::nullopt;
  return devices_[(is_own(from) ? from : to).index() - first_.index()];
}

void DirectChannels::send(RankId from, RankId to, const std::vector<at::Tensor>& tensors) {
  channel(from, to).send(tensors);
}

ExpectedTensors DirectChannels::receive(RankId from, RankId to, const Layouts& layouts) {
  return channel(from, to).receive(layouts);
}

DirectChannel& DirectChannels::channel(RankId from, RankId to) {
  const std::pair<RankId, RankId> pair{from, to};
  {
    const std::scoped_lock lock(mutex_);
    if (const auto found = channels_.find(pair); found != channels_.end()) return *found->second;
  }
  // Without the lock, as it waits for the other process, which may wait for another channel of this one. Only one
  // thread makes the channel of a pair: the sending rank's, or the link's.
  auto made = make(from, to);
  const std::scoped_lock lock(mutex_);
  if (aborted_) made->abort();
  return *channels_.emplace(pair, std::move(made)).first->second;
}

std::unique_ptr<DirectChannel> DirectChannels::make(RankId from, RankId to) {
  const int member = is_own(from) ? sender : receiver;
  const auto store =
      c10::make_intrusive<c10d::PrefixStore>(fmt::format("direct/{}/{}", from.value, to.value), open_store_());
  meet(*store, member);
  return std::make_unique<DirectChannel>(backend_, store, member, *device_between(from, to));
}

// A group that is being made waits for its other member, and nothing ends that wait: it is begun when both are there.
void DirectChannels::meet(c10d::Store& store, int member) {
  constexpr std::chrono::milliseconds pause{1};
  const auto key = [](int of) { return fmt::format("here/{}", of); };
  with_own_errors([&] {
    store.set(key(member), std::vector<std::uint8_t>{1});
    while (!store.check({key(1 - member)})) {
      if (aborted_) throw not_reached("a message after the run has ended");
      std::this_thread::sleep_for(pause);
    }
  });
}

// All at once: an end frees memory of its device, which waits for all that runs there, and so for the other ends.
void DirectChannels::abort() {
  const std::scoped_lock lock(mutex_);
  if (aborted_.exchange(true)) return;
  std::vector<std::thread> aborting;
  aborting.reserve(channels_.size());
  for (const auto& [pair, channel] : channels_) {
    try {
      aborting.emplace_back([&channel] { channel->abort(); });
    } catch (const std::system_error&) {
      channel->abort();  // no room for a thread: one after the other
    }
  }
  for (std::thread& thread : aborting) thread.join();
}

}  // namespace penstock
