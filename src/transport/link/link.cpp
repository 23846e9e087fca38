#include "transport/link/link.h"

#include <utility>

#include "penstock/transport/layout.h"

namespace penstock {
namespace {

std::vector<Channel*> pointers_to(const std::unique_ptr<Channel>& control, const std::unique_ptr<Channel>& data) {
  std::vector<Channel*> channels{control.get()};
  if (data) channels.push_back(data.get());
  return channels;
}

}  // namespace

// Reads the frames of one channel.
class Link::Reception final : public FrameSink {
 public:
  explicit Reception(Link& link) : link_(link), reader_(link.settings_.terms), assembly_(link.settings_.devices) {}

  bool take(std::span<const std::byte> bytes) override {
    link_.session_.heard();
    return link_.take(reader_.read(bytes), assembly_);
  }
  void ended(const std::exception_ptr& why) override { link_.session_.channel_ended(why); }

 private:
  Link& link_;
  FrameReader reader_;
  MessageAssembly assembly_;
};

Link::Link(const LinkSettings& settings, OnMessage on_message, SessionObserver observer,
           std::unique_ptr<Channel> control, std::unique_ptr<Channel> data, const Clock& clock)
    : settings_(settings),
      on_message_(std::move(on_message)),
      session_(pointers_to(control, data), std::move(observer), clock) {
  channels_.push_back(std::move(control));
  if (data) channels_.push_back(std::move(data));
}

void Link::start() {
  for (const auto& channel : channels_) channel->start(*receptions_.emplace_back(std::make_unique<Reception>(*this)));
}

Link::~Link() { close(); }

void Link::close() {
  session_.close();
  for (const auto& channel : channels_) channel->stop();
  for (const auto& channel : channels_) channel->close();
}

void Link::send(const FrameAddress& address, const std::vector<at::Tensor>& tensors) {
  const RankId from{address.from};
  const RankId to{address.to};
  std::optional<at::Device> device;
  if (settings_.devices != nullptr) device = settings_.devices->device_between(from, to);
  std::vector<at::Tensor> on_device;
  Outgoing outgoing = outgoing_message(address, tensors, device, settings_.terms.largest_message_bytes, on_device);
  if (!channels_.back()->send(std::move(outgoing), Place::Behind)) return;
  messages_sent_.fetch_add(1, std::memory_order_relaxed);
  if (on_device.empty()) return;
  // Behind the frame, from which the other learns that it has to receive.
  settings_.devices->send(from, to, on_device);
  sent_on_devices_.fetch_add(bytes_of(on_device).count, std::memory_order_relaxed);
}

// With devices the channel's thread takes all frames: it enqueues what they announce on a stream of its own.
void Link::receive_until(const std::function<bool()>& done) {
  if (settings_.devices == nullptr) channels_.back()->receive_until(done);
}

void Link::receive_ready() {
  if (settings_.devices == nullptr) channels_.back()->receive_ready();
}

bool Link::take(const Incoming& incoming, MessageAssembly& assembly) {
  if (incoming.kind != FrameKind::Message && incoming.kind != FrameKind::Continuation) return session_.take(incoming);
  std::optional<Arrived> arrived = assembly.add(incoming);
  auto bytes = static_cast<std::int64_t>(frame_header_bytes + incoming.bytes.size());
  if (arrived) bytes += arrived->on_device.count;
  received_.fetch_add(bytes, std::memory_order_relaxed);
  if (!arrived) return true;
  messages_received_.fetch_add(1, std::memory_order_relaxed);
  on_message_(arrived->address, std::move(arrived->tensors), std::move(arrived->wait));
  return true;
}

LinkReport Link::report() const {
  LinkReport report;
  report.process = settings_.process;
  for (const auto& channel : channels_) report.sent += channel->counts().bytes;
  report.sent += Bytes{sent_on_devices_.load()};
  report.received = Bytes{received_.load()};
  report.messages_sent = messages_sent_.load();
  report.messages_received = messages_received_.load();
  return report;
}

}  // namespace penstock
