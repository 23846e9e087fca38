#include <fmt/format.h>
#include <thread>
#include <utility>

#include "penstock/transport/transport.h"

#include "transport/inbox.h"

namespace penstock {
namespace {

struct Inboxes {
  explicit Inboxes(int ranks) : by_rank(static_cast<std::size_t>(ranks)) {}
  std::vector<Inbox> by_rank;
};

class InprocTransport final : public Transport {
 public:
  InprocTransport(RankId rank, std::shared_ptr<Inboxes> inboxes, const InprocSettings& settings)
      : rank_(rank), inboxes_(std::move(inboxes)), settings_(settings) {}

  [[nodiscard]] RankId rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return static_cast<int>(inboxes_->by_rank.size()); }

  void send(RankId to, const Tag& tag, MessageTensors message) override {
    inboxes_->by_rank.at(to.index()).put({rank_, tag}, std::move(message));
  }

  [[nodiscard]] MessageTensors receive(RankId from, const Tag& tag) override {
    ArrivedMessage message = inboxes_->by_rank[rank_.index()].take({from, tag}, settings_.spin_us);
    last_arrival_ = message.at;
    return std::move(message.tensors);
  }

  [[nodiscard]] Milliseconds last_arrival() const override { return last_arrival_; }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override {
    return inboxes_->by_rank[rank_.index()].has({from, tag});
  }

  void abort(const std::string& reason) noexcept override {
    for (Inbox& inbox : inboxes_->by_rank) inbox.abort(reason);
  }

 private:
  RankId rank_;
  std::shared_ptr<Inboxes> inboxes_;
  InprocSettings settings_;
  Milliseconds last_arrival_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> make_inproc_transport(int ranks, const InprocSettings& settings) {
  if (ranks < 1) throw bad_input(fmt::format("{} ranks", ranks), "at least 1", "raise the number of stages");
  const auto inboxes = std::make_shared<Inboxes>(ranks);
  std::vector<std::unique_ptr<Transport>> ends;
  ends.reserve(static_cast<std::size_t>(ranks));
  for (std::int32_t rank = 0; rank < ranks; ++rank)
    ends.push_back(std::make_unique<InprocTransport>(RankId{rank}, inboxes, settings));
  return ends;
}

double spin_us_for(int ranks) { return ranks <= static_cast<int>(std::thread::hardware_concurrency()) ? 200.0 : 0.0; }

}  // namespace penstock
