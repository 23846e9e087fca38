// What the holders of one stage exchange, each on a thread as a rank of a run is.
#include "pipeline/copies.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/transport/transport.h"

namespace penstock::copies_test {
namespace {

constexpr int ranks = 3;
constexpr std::int64_t width = 4;

// One stage of three layers, with a copy on each rank.
std::vector<Stage> one_stage() {
  StageParts parts;
  for (int layer = 0; layer < 3; ++layer)
    parts.layers.emplace_back(std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(width, width)));
  parts.copied = true;
  std::vector<Stage> stages;
  stages.emplace_back(std::move(parts));
  return stages;
}

Tensors parameters_of(const Stage& stage) {
  Tensors parameters;
  for (const Layer& layer : stage.layers())
    for (const at::Tensor& parameter : layer.module().parameters()) parameters.push_back(parameter);
  return parameters;
}

Placement on_ranks(std::vector<RankId> holders) { return {{std::move(holders)}}; }

// Other numbers on each rank, which do not add up to the same in another order.
at::Tensor gradient_of(int rank, std::size_t parameter, const at::Tensor& like) {
  const auto first = static_cast<double>(1 + rank * 31 + static_cast<int>(parameter) * 7);
  return (at::arange(like.numel(), at::kDouble) + first).sin().mul(std::pow(10.0, rank)).to(at::kFloat).view_as(like);
}

struct Holder {
  Transport& transport;
  Copies& copies;
  Tensors parameters;

  [[nodiscard]] int rank() const { return transport.rank().value; }
  void fill_gradients() {
    for (std::size_t index = 0; index < parameters.size(); ++index)
      parameters[index].mutable_grad() = gradient_of(rank(), index, parameters[index]);
  }
};

// Calls `act` for each rank on a thread of its own. An exception ends the test.
void on_each(const CopySettings& settings, const std::function<void(Holder&)>& act) {
  const auto ends = make_inproc_transport(ranks);
  const Placement placement = on_ranks({RankId{0}, RankId{1}, RankId{2}});
  std::vector<std::thread> threads;
  threads.reserve(ends.size());
  for (const auto& end : ends)
    threads.emplace_back([&] {
      MemoryMeter memory;
      const std::vector<Stage> stages = one_stage();
      const std::vector<TieGroup> no_ties;
      Copies copies(placement, no_ties, stages, settings, *end, memory);
      Holder holder{*end, copies, parameters_of(stages.front())};
      copies.begin();
      act(holder);
    });
  for (std::thread& thread : threads) thread.join();
}

// ((first + second) + third), to the bit.
at::Tensor sum_in_order(std::size_t parameter, const at::Tensor& like) {
  at::Tensor sum = gradient_of(0, parameter, like).clone();
  for (int rank = 1; rank < ranks; ++rank) sum += gradient_of(rank, parameter, like);
  return sum;
}

TEST(Copies, EveryHolderGetsTheSumInTheOrderOfTheHolders) {
  for (const std::int64_t bucket : {1, 80, 4 << 20}) {
    SCOPED_TRACE(bucket);
    on_each({.bucket = {bucket}}, [](Holder& holder) {
      holder.fill_gradients();
      holder.copies.reduction().on_final(0);
      holder.copies.add_up();
      for (std::size_t index = 0; index < holder.parameters.size(); ++index)
        EXPECT_TRUE(at::equal(holder.parameters[index].grad(), sum_in_order(index, holder.parameters[index])))
            << "rank " << holder.rank() << ", parameter " << index;
      EXPECT_GT(holder.copies.sent(0).count, 0);
      holder.copies.begin_accounting();
      EXPECT_EQ(holder.copies.sent(0).count, 0);
    });
  }
}

TEST(Copies, AHolderWithoutAGradientAddsNothing) {
  on_each({}, [](Holder& holder) {
    if (holder.rank() == 1) holder.fill_gradients();
    holder.copies.add_up();
    for (std::size_t index = 0; index < holder.parameters.size(); ++index)
      EXPECT_TRUE(at::equal(holder.parameters[index].grad(), gradient_of(1, index, holder.parameters[index])));
  });
}

TEST(Copies, OfAShardedStageEachParameterIsUpdatedByOneHolderAndSentToTheOthers) {
  std::mutex mutex;
  std::vector<int> owners(6, 0);
  on_each({.bucket = {1}, .shard = true}, [&](Holder& holder) {
    holder.fill_gradients();
    holder.copies.add_up();
    for (std::size_t index = 0; index < holder.parameters.size(); ++index) {
      const at::NoGradGuard no_graph;
      const at::Tensor& parameter = holder.parameters[index];
      if (holder.copies.updated_elsewhere(parameter)) continue;
      EXPECT_TRUE(at::equal(parameter.grad(), sum_in_order(index, parameter)));
      parameter.copy_(parameter.grad());
      const std::scoped_lock lock(mutex);
      ++owners[index];
    }
    holder.copies.share_weights();
    for (std::size_t index = 0; index < holder.parameters.size(); ++index)
      EXPECT_TRUE(at::equal(holder.parameters[index], sum_in_order(index, holder.parameters[index])))
          << "rank " << holder.rank() << ", parameter " << index;
  });
  EXPECT_EQ(owners, std::vector<int>(6, 1));
}

TEST(Copies, AStageOfOneHolderExchangesNothing) {
  const auto ends = make_inproc_transport(1);
  MemoryMeter memory;
  const std::vector<Stage> stages = one_stage();
  Copies copies(on_ranks({RankId{0}}), {}, stages, {}, *ends.front(), memory);
  EXPECT_TRUE(copies.reduction().is_empty());
  copies.begin();
  copies.add_up();
  copies.share_weights();
  for (const at::Tensor& parameter : parameters_of(stages.front())) EXPECT_FALSE(copies.updated_elsewhere(parameter));
  EXPECT_EQ(copies.sent(0).count, 0);
}

}  // namespace
}  // namespace penstock::copies_test
