// Whatever a rank waits for when another process is lost: the message says who waits.
#include <atomic>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/transport/transport.h"

namespace penstock::lost_peer_test {
namespace {

constexpr const char* lost = "process 1 (rank 1) is lost";

template <class Work>
auto as_lost(const Work& work) {
  try {
    return work();
  } catch (const Aborted& aborted) {
    throw Aborted(aborted.what(), /*peer_is_lost=*/true);
  }
}

// Passes on what it is given until a receive of its number, of all ranks' together; then every wait ends as if another
// process had gone.
class EndsAtReceive final : public Transport {
 public:
  EndsAtReceive(std::unique_ptr<Transport> end, std::shared_ptr<std::atomic<int>> left)
      : end_(std::move(end)), left_(std::move(left)) {}

  [[nodiscard]] RankId rank() const override { return end_->rank(); }
  [[nodiscard]] int ranks() const override { return end_->ranks(); }
  void send(RankId to, const Tag& tag, std::vector<at::Tensor> message) override {
    as_lost([&] { end_->send(to, tag, std::move(message)); });
  }
  [[nodiscard]] std::vector<at::Tensor> receive(RankId from, const Tag& tag) override {
    if (left_->fetch_sub(1) == 0) end_->abort(lost);
    return as_lost([&] { return end_->receive(from, tag); });
  }
  [[nodiscard]] Milliseconds last_arrival() const override { return end_->last_arrival(); }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override {
    return as_lost([&] { return end_->has_arrived(from, tag); });
  }
  void abort(const std::string& reason) noexcept override { end_->abort(reason); }

 private:
  std::unique_ptr<Transport> end_;
  std::shared_ptr<std::atomic<int>> left_;
};

// What a run says of a loss at its receive of this number; nothing if it has fewer of them.
std::string said_of_a_loss_at(int receive) {
  const auto left = std::make_shared<std::atomic<int>>(receive);
  PipelineSettings settings;
  settings.links = [&](std::vector<std::unique_ptr<Transport>> ends) {
    for (auto& end : ends) end = std::make_unique<EndsAtReceive>(std::move(end), left);
    return ends;
  };
  Network network;
  for (int layer = 0; layer < 3; ++layer)
    network.layers.push_back(layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(4, 4)));
  network.loss = squared_error;
  network.ties.push_back({{0, "weight"}, {2, "weight"}});
  const at::Tensor samples = torch::ones({4, 4});
  try {
    Pipeline pipeline(network, verify(one_f_one_b_schedule(3, 2)), settings);
    for (int step = 0; step < 2; ++step) pipeline.step(samples, samples, step, 0.1);
    static_cast<void>(pipeline.evaluate(samples, samples));
    static_cast<void>(pipeline.report());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(LostPeer, WhoWaitsIsNamedWhereverARankWaits) {
  int outside = 0;
  int receive = 0;
  for (;; ++receive) {
    const std::string said = said_of_a_loss_at(receive);
    if (said.empty()) break;
    EXPECT_NE(said.find(": waits for "), std::string::npos) << "receive " << receive << ": " << said;
    EXPECT_NE(said.find(lost), std::string::npos) << said;
    outside += static_cast<int>(said.find("outside a step") != std::string::npos);
  }
  EXPECT_GT(receive, 10);
  EXPECT_GT(outside, 0);
}

}  // namespace
}  // namespace penstock::lost_peer_test
