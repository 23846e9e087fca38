#include "penstock/exec/device.h"

#include <cstdlib>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace penstock {
namespace {

using c10::impl::VirtualGuardImpl;

// The allocator must not hand the memory out again before `stream` has done with it.
void used_on(const at::Tensor& tensor, const c10::Stream& stream) {
  VirtualGuardImpl(stream.device_type()).recordDataPtrOnStream(tensor.storage().data_ptr(), stream);
}

}  // namespace

DeviceLane::DeviceLane(at::Device device) : device_(device) {
  if (device.is_cpu()) return;
  const VirtualGuardImpl guard(device.type());
  if (!device.has_index()) device_ = guard.getDevice();
  compute_ = guard.getStreamFromGlobalPool(device_);
  copies_ = guard.getStreamFromGlobalPool(device_);
}

void DeviceLane::enter(const std::vector<c10::Event>& before) {
  for (const c10::Event& event : before) {
    // Copies from that device are started on the thread's own stream there.
    event.block(VirtualGuardImpl(event.device_type()).getStream(event.device()));
    if (!on_host() && event.device_type() == device_.type()) event.block(*compute_);
  }
  if (on_host()) return;
  const VirtualGuardImpl guard(device_.type());
  guard.setDevice(device_);
  guard.exchangeStream(*compute_);
}

c10::Event DeviceLane::mark() const {
  c10::Event event(device_.type());
  event.record(*compute_);
  return event;
}

std::vector<at::Tensor> DeviceLane::bring(std::vector<at::Tensor> tensors, const c10::Event& ready) {
  if (on_host()) {
    ready.synchronize();
    return tensors;
  }
  bool waits_for_copies = false;
  bool waits_for_sender = false;
  for (at::Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.device().is_cpu()) continue;
    if (tensor.device() == device_) {
      if (!std::exchange(waits_for_sender, true)) ready.block(*compute_);
    } else {
      if (!std::exchange(waits_for_copies, true)) ready.block(*copies_);
      tensor = copied(tensor, ready);
    }
    used_on(tensor, *compute_);
  }
  if (waits_for_copies) {
    c10::Event arrived(device_.type());
    arrived.record(*copies_);
    arrived.block(*compute_);
  }
  return tensors;
}

// libtorch runs a copy on the current stream of the source, between two waits with that of the destination.
at::Tensor DeviceLane::copied(const at::Tensor& tensor, const c10::Event& ready) {
  const at::NoGradGuard no_graph;
  auto source = sources_.find(tensor.device().index());
  if (source == sources_.end())
    source = sources_
                 .emplace(tensor.device().index(),
                          VirtualGuardImpl(tensor.device().type()).getStreamFromGlobalPool(tensor.device()))
                 .first;
  ready.block(source->second);
  const c10::MultiStreamGuard streams({source->second, *copies_});
  at::Tensor here = tensor.to(device_, /*non_blocking=*/true);
  used_on(tensor, source->second);
  if (tensor.requires_grad()) here.requires_grad_();
  return here;
}

void DeviceLane::wait() const {
  if (on_host()) return;
  const VirtualGuardImpl guard(device_.type());
  guard.synchronizeStream(*copies_);
  guard.synchronizeStream(*compute_);
}

std::vector<c10::Event> marks_of_caller(const std::vector<at::Device>& devices) {
  std::vector<c10::Event> marks;
  for (const at::Device device : devices) {
    if (device.is_cpu()) continue;
    marks.emplace_back(device.type());
    marks.back().record(VirtualGuardImpl(device.type()).getStream(device));
  }
  return marks;
}

namespace {

// One that keeps its time, behind what the thread has enqueued so far.
c10::Event timed_event(at::Device device) {
  c10::Event event(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  event.record(VirtualGuardImpl(device.type()).getStream(device));
  return event;
}

}  // namespace

void Stamps::align() {
  if (device_.is_cpu()) return;
  anchor_ = timed_event(device_);
  anchor_->synchronize();
  anchored_ = clock_.now();
}

void Stamps::begin() {
  if (!anchor_) align();
  on_device_.clear();
}

Milliseconds Stamps::stamp() {
  const auto number = static_cast<double>(on_device_.size());
  on_device_.push_back(timed_event(device_));
  return {number};
}

void Stamps::resolve(std::vector<Event>& events) {
  if (device_.is_cpu() || on_device_.empty()) return;
  if (!on_device_.back().query()) on_device_.back().synchronize();
  // From program to program: a device measures long times in few digits.
  anchored_ += Milliseconds{anchor_->elapsedTime(on_device_.front())};
  anchor_ = std::move(on_device_.front());
  const auto time_of = [&](Milliseconds number) {
    const auto index = static_cast<std::size_t>(number.count);
    return index == 0 ? anchored_ : anchored_ + Milliseconds{anchor_->elapsedTime(on_device_[index])};
  };
  for (Event& event : events) {
    event.start = time_of(event.start);
    event.end = time_of(event.end);
  }
}

void choose_repeatable_algorithms() {
  // Without it cuBLAS shares workspaces between streams. Whoever has set it keeps it.
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*replace=*/0);  // NOLINT(concurrency-mt-unsafe): at the start
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // What is not written yet is read by nobody here: no need to fill it.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

namespace {

c10::DeviceAllocator* allocator_of(at::Device device) {
  return device.is_cpu() ? nullptr : dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
}

c10::DeviceIndex index_of(at::Device device) {
  return device.has_index() ? device.index() : VirtualGuardImpl(device.type()).getDevice().index();
}

}  // namespace

std::optional<DeviceMemory> device_memory(at::Device device) {
  c10::DeviceAllocator* allocator = allocator_of(device);
  if (allocator == nullptr) return std::nullopt;
  const auto bytes = allocator->getDeviceStats(index_of(device))
                         .allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return DeviceMemory{{bytes.current}, {bytes.peak}};
}

void reset_device_peak(at::Device device) {
  if (c10::DeviceAllocator* allocator = allocator_of(device)) allocator->resetPeakStats(index_of(device));
}

}  // namespace penstock
