#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "penstock/exec/device.h"

namespace penstock {
namespace {

// The events of the messages that are on their way: one for each message of a rank that is not on the host, in the
// order of its tag's messages.
class Marks {
 public:
  void put(RankId from, RankId to, const Tag& tag, c10::Event mark) {
    const std::scoped_lock lock(mutex_);
    marks_[{from, to, tag}].push_back(std::move(mark));
  }

  c10::Event take(RankId from, RankId to, const Tag& tag) {
    const std::scoped_lock lock(mutex_);
    const auto found = marks_.find({from, to, tag});
    check_invariant(found != marks_.end(), "a message of a device without its event");
    c10::Event mark = std::move(found->second.front());
    found->second.pop_front();
    if (found->second.empty()) marks_.erase(found);
    return mark;
  }

 private:
  std::mutex mutex_;
  std::map<std::tuple<RankId, RankId, Tag>, std::deque<c10::Event>> marks_;
};

class OrderedTransport final : public Transport {
 public:
  OrderedTransport(std::unique_ptr<Transport> end, std::vector<DeviceLane*> lanes, std::shared_ptr<Marks> marks)
      : end_(std::move(end)), lanes_(std::move(lanes)), marks_(std::move(marks)) {}

  [[nodiscard]] RankId rank() const override { return end_->rank(); }
  [[nodiscard]] int ranks() const override { return end_->ranks(); }

  void send(RankId to, const Tag& tag, std::vector<at::Tensor> message) override {
    const DeviceLane& own = *lanes_[rank().index()];
    // Before the message, so that who has it finds the event.
    if (!own.on_host() && lanes_[to.index()] != nullptr) marks_->put(rank(), to, tag, own.mark());
    end_->send(to, tag, std::move(message));
  }

  [[nodiscard]] std::vector<at::Tensor> receive(RankId from, const Tag& tag) override {
    std::vector<at::Tensor> message = end_->receive(from, tag);
    const DeviceLane* sender = lanes_[from.index()];
    if (sender == nullptr || sender->on_host()) return message;
    return lanes_[rank().index()]->bring(std::move(message), marks_->take(from, rank(), tag));
  }

  [[nodiscard]] Milliseconds last_arrival() const override { return end_->last_arrival(); }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override { return end_->has_arrived(from, tag); }

  void abort(const std::string& reason) noexcept override { end_->abort(reason); }

 private:
  std::unique_ptr<Transport> end_;
  std::vector<DeviceLane*> lanes_;
  std::shared_ptr<Marks> marks_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> ordered_by_events(std::vector<std::unique_ptr<Transport>> ends,
                                                          const std::vector<DeviceLane*>& lanes) {
  bool all_on_host = true;
  for (const DeviceLane* lane : lanes) all_on_host = all_on_host && (lane == nullptr || lane->on_host());
  if (all_on_host) return ends;
  const auto marks = std::make_shared<Marks>();
  for (auto& end : ends) end = std::make_unique<OrderedTransport>(std::move(end), lanes, marks);
  return ends;
}

}  // namespace penstock
