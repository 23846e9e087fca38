#include "penstock/transport/emulated_links.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>

#include <ATen/core/Tensor.h>

#include "transport/strided_tensor.h"

namespace penstock {
namespace {

using Time = std::chrono::steady_clock::time_point;

Time later_by(Time time, double milliseconds) {
  return time + std::chrono::duration_cast<Time::duration>(std::chrono::duration<double, std::milli>(milliseconds));
}

// When the messages that are on their way arrive, in the order of each tag's messages.
class Arrivals {
 public:
  void put(RankId from, RankId to, const Tag& tag, Time time) {
    const std::scoped_lock lock(mutex_);
    times_[{from, to, tag}].push_back(time);
  }
  Time take(RankId from, RankId to, const Tag& tag) {
    const std::scoped_lock lock(mutex_);
    const auto found = times_.find({from, to, tag});
    check_invariant(found != times_.end(), "a message without its arrival");
    const Time time = found->second.front();
    found->second.pop_front();
    if (found->second.empty()) times_.erase(found);
    return time;
  }
  // Whether the next message of that tag has crossed its link.
  [[nodiscard]] bool is_due(RankId from, RankId to, const Tag& tag) {
    const std::scoped_lock lock(mutex_);
    const auto found = times_.find({from, to, tag});
    return found != times_.end() && found->second.front() <= std::chrono::steady_clock::now();
  }

 private:
  std::mutex mutex_;
  std::map<std::tuple<RankId, RankId, Tag>, std::deque<Time>> times_;
};

class EmulatedTransport final : public Transport {
 public:
  EmulatedTransport(std::unique_ptr<Transport> end, std::shared_ptr<Arrivals> arrivals,
                    std::function<EmulatedLink(RankId, RankId)> link_between,
                    std::function<bool(const Tag&)> is_delayed)
      : end_(std::move(end)),
        arrivals_(std::move(arrivals)),
        link_between_(std::move(link_between)),
        is_delayed_(std::move(is_delayed)) {}

  [[nodiscard]] RankId rank() const override { return end_->rank(); }
  [[nodiscard]] int ranks() const override { return end_->ranks(); }

  void send(RankId to, const Tag& tag, std::vector<at::Tensor> message) override {
    if (is_delayed_(tag)) arrivals_->put(rank(), to, tag, arrival(to, message));
    end_->send(to, tag, std::move(message));
  }

  [[nodiscard]] std::vector<at::Tensor> receive(RankId from, const Tag& tag) override {
    std::vector<at::Tensor> message = end_->receive(from, tag);
    last_arrival_ = end_->last_arrival();
    if (!is_delayed_(tag)) return message;
    const Time due = arrivals_->take(from, rank(), tag);
    std::this_thread::sleep_until(due);
    last_arrival_ = std::max(last_arrival_,
                             Milliseconds{std::chrono::duration<double, std::milli>(due.time_since_epoch()).count()});
    return message;
  }

  [[nodiscard]] Milliseconds last_arrival() const override { return last_arrival_; }

  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override {
    return end_->has_arrived(from, tag) && (!is_delayed_(tag) || arrivals_->is_due(from, rank(), tag));
  }

  void abort(const std::string& reason) noexcept override { end_->abort(reason); }

 private:
  struct Link {
    EmulatedLink of;
    Time free_at;
  };

  // Occupies the link.
  Time arrival(RankId to, const std::vector<at::Tensor>& message) {
    auto found = links_.find(to);
    if (found == links_.end()) found = links_.emplace(to, Link{link_between_(rank(), to), Time{}}).first;
    Link& link = found->second;
    double bytes = 0;
    for (const at::Tensor& tensor : message)
      if (tensor.defined()) bytes += static_cast<double>(extent_of(tensor).distinct * tensor.element_size());
    link.free_at =
        later_by(std::max(std::chrono::steady_clock::now(), link.free_at), bytes / link.of.bytes_per_millisecond);
    return later_by(link.free_at, link.of.latency.count);
  }

  std::unique_ptr<Transport> end_;
  std::shared_ptr<Arrivals> arrivals_;
  std::function<EmulatedLink(RankId, RankId)> link_between_;
  std::function<bool(const Tag&)> is_delayed_;
  std::map<RankId, Link> links_;  // from this rank
  Milliseconds last_arrival_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> with_emulated_links(
    std::vector<std::unique_ptr<Transport>> ends,
    const std::function<EmulatedLink(RankId from, RankId to)>& link_between,
    const std::function<bool(const Tag& tag)>& is_delayed) {
  const auto arrivals = std::make_shared<Arrivals>();
  for (auto& end : ends) end = std::make_unique<EmulatedTransport>(std::move(end), arrivals, link_between, is_delayed);
  return ends;
}

}  // namespace penstock
