// Against torch::optim, in double precision: parameters of every layout, with gradients in some updates only.
#include "penstock/optim/optimizer.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"

namespace penstock::optimizer_test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

using Random = std::mt19937_64;

at::Tensor drawn(const std::vector<std::int64_t>& sizes, Random& random, at::ScalarType dtype = at::kDouble) {
  at::Generator generator = at::detail::createCPUGenerator(random());
  return at::randn(sizes, generator, at::kDouble).to(dtype);
}

const std::vector<std::string>& layouts() {
  static const std::vector<std::string> names{"matrix",        "vector", "transposed", "columns",    "every other row",
                                              "channels last", "scalar", "empty",      "one column", "permuted slice"};
  return names;
}

// Values in a layout of that name: the same sizes and strides for the same name.
at::Tensor in_layout(const std::string& layout, Random& random, at::ScalarType dtype) {
  if (layout == "vector") return drawn({9}, random, dtype);
  if (layout == "transposed") return drawn({7, 5}, random, dtype).t();
  if (layout == "columns") return drawn({6, 8}, random, dtype).slice(1, 1, 6);
  if (layout == "every other row") return drawn({8, 3}, random, dtype).slice(0, 0, 8, 2);
  if (layout == "channels last") return drawn({2, 3, 4, 5}, random, dtype).contiguous(at::MemoryFormat::ChannelsLast);
  if (layout == "scalar") return drawn({}, random, dtype);
  if (layout == "empty") return drawn({0, 4}, random, dtype);
  if (layout == "one column") return drawn({6, 1}, random, dtype);
  if (layout == "permuted slice") return drawn({4, 6, 3}, random, dtype).slice(1, 1, 4).permute({2, 0, 1});
  return drawn({5, 7}, random, dtype);
}

// A gradient for a parameter in a layout that may be another: as it comes from transposed, sliced and broadcast
// tensors.
at::Tensor drawn_gradient(const at::Tensor& parameter, Random& random) {
  const at::ScalarType dtype = parameter.scalar_type();
  const std::vector<std::int64_t> sizes = parameter.sizes().vec();
  if (parameter.dim() == 0) return drawn(sizes, random, dtype);
  switch (random() % 4) {
    case 0:
      return drawn({}, random, dtype).expand(sizes);
    case 1: {
      const std::vector<std::int64_t> turned(sizes.rbegin(), sizes.rend());
      std::vector<std::int64_t> order(sizes.size());
      for (std::size_t place = 0; place < order.size(); ++place)
        order[place] = static_cast<std::int64_t>(order.size() - 1 - place);
      return drawn(turned, random, dtype).permute(order);
    }
    case 2: {
      std::vector<std::int64_t> wider = sizes;
      wider.back() += 3;
      return drawn(wider, random, dtype).slice(-1, 2, 2 + sizes.back());
    }
    default:
      return drawn(sizes, random, dtype);
  }
}

struct Case {
  OptimizerSettings settings;
  double learning_rate = 0;
  std::vector<at::Tensor> own;
  std::vector<at::Tensor> of_torch;
  std::vector<Optimizer::Parameter> parameters;
  std::unique_ptr<torch::optim::Optimizer> torch;
};

template <class Optim, class Options>
std::unique_ptr<torch::optim::Optimizer> make_torch(const Case& of, const std::vector<double>& decays,
                                                    const std::vector<double>& factors, const Options& options) {
  std::vector<torch::optim::OptimizerParamGroup> groups;
  for (std::size_t index = 0; index < of.of_torch.size(); ++index) {
    Options of_group = options;
    of_group.weight_decay(decays[index]).lr(of.learning_rate * factors[index]);
    groups.emplace_back(std::vector<at::Tensor>{of.of_torch[index]}, std::make_unique<Options>(of_group));
  }
  return std::make_unique<Optim>(groups, options);
}

// Ten parameters and more, of all layouts and with rules of their own.
Case drawn_case(const std::string& kind, std::uint64_t seed, at::ScalarType dtype) {
  Random random(seed);
  Case drawn;
  drawn.learning_rate = 0.01 * static_cast<double>(1 + random() % 20);
  drawn.settings.kind = kind_named<OptimizerKind>(kind).value();
  drawn.settings.momentum = random() % 3 == 0 ? 0 : 0.9;
  drawn.settings.weight_decay = 0.1 * static_cast<double>(random() % 3);
  drawn.settings.rules = {{"layers.2.*", 0.3, 0.5}, {"*.0", {}, 2}, {"layers.[0-4].1", 0, 1}};
  std::vector<double> decays;
  std::vector<double> factors;
  for (int layer = 0; layer < 12; ++layer) {
    const std::string layout = layer < 10 ? layouts()[static_cast<std::size_t>(layer)] : layouts()[random() % 10];
    const auto place = static_cast<int>(random() % 3);
    const std::uint64_t values = random();
    for (auto* side : {&drawn.own, &drawn.of_torch}) {
      Random same(values);
      side->push_back(in_layout(layout, same, dtype).detach().set_requires_grad(true));
    }
    drawn.parameters.push_back({"layers." + std::to_string(layer) + "." + std::to_string(place), drawn.own.back()});
    double decay = drawn.own.back().dim() >= 2 ? drawn.settings.weight_decay : 0;
    double factor = 1;
    if (layer == 2) {
      decay = 0.3;
      factor = 0.5;
    } else if (place == 0) {
      factor = 2;
    } else if (layer <= 4 && place == 1) {
      decay = 0;
    }
    decays.push_back(decay);
    factors.push_back(factor);
  }
  if (kind == "sgd")
    drawn.torch = make_torch<torch::optim::SGD>(drawn, decays, factors,
                                                torch::optim::SGDOptions(1).momentum(drawn.settings.momentum));
  else
    drawn.torch = make_torch<torch::optim::AdamW>(
        drawn, decays, factors,
        torch::optim::AdamWOptions(1).betas({drawn.settings.beta1, drawn.settings.beta2}).eps(drawn.settings.epsilon));
  return drawn;
}

// The same gradients for both, for about two parameters in three. What libtorch's kernels round in half precision
// depends on strides: it gets the gradients there in the layout in which autograd leaves them.
void draw_gradients(Case& of, Random& random) {
  for (std::size_t index = 0; index < of.own.size(); ++index) {
    at::Tensor gradient = random() % 3 == 0 ? at::Tensor() : drawn_gradient(of.own[index], random);
    of.own[index].mutable_grad() = gradient;
    if (gradient.defined())
      gradient = at::isReducedFloatingType(gradient.scalar_type()) ? in_layout_of(of.own[index], gradient).clone()
                                                                   : gradient.clone();
    of.of_torch[index].mutable_grad() = gradient;
  }
}

void expect_near(const Case& of, double tolerance, int update) {
  for (std::size_t index = 0; index < of.own.size(); ++index) {
    if (of.own[index].numel() == 0) continue;
    const auto difference = (of.own[index] - of.of_torch[index]).abs().max().item<double>();
    const double size = std::max(1.0, of.of_torch[index].abs().max().item<double>());
    EXPECT_LE(difference, tolerance * size) << of.parameters[index].name << " after update " << update;
  }
}

class AgainstTorch : public testing::TestWithParam<const char*> {};

TEST_P(AgainstTorch, EveryLayoutHasItsNumbersInDoublePrecision) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Case drawn = drawn_case(GetParam(), seed, at::kDouble);
    Optimizer optimizer(drawn.settings, drawn.parameters);
    Random random(seed + 100);
    for (int update = 0; update < 6; ++update) {
      if (update == 3) {
        // An update that is taken back leaves nothing, counts neither.
        draw_gradients(drawn, random);
        optimizer.keep();
        optimizer.update(drawn.learning_rate);
        optimizer.take_back();
      }
      draw_gradients(drawn, random);
      optimizer.update(drawn.learning_rate);
      drawn.torch->step();
      expect_near(drawn, 1e-12, update);
    }
  }
}

TEST_P(AgainstTorch, EveryDtypeHasItsOwnRounding) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      SCOPED_TRACE(testing::Message() << at::toString(dtype) << ", seed " << seed);
      Case drawn = drawn_case(GetParam(), seed, dtype);
      Optimizer optimizer(drawn.settings, drawn.parameters);
      Random random(seed + 100);
      for (int update = 0; update < 4; ++update) {
        draw_gradients(drawn, random);
        optimizer.update(drawn.learning_rate);
        drawn.torch->step();
        expect_near(drawn, dtype == at::kFloat ? 1e-6 : 0, update);
      }
    }
  }
}

TEST_P(AgainstTorch, AStateThatIsResumedGoesOnToTheSameBits) {
  Case drawn = drawn_case(GetParam(), 7, at::kDouble);
  Optimizer first(drawn.settings, drawn.parameters);
  Random random(8);
  for (int update = 0; update < 3; ++update) {
    draw_gradients(drawn, random);
    first.update(drawn.learning_rate);
  }
  // In the same layouts, which a clone would not have.
  const std::vector<Optimizer::Parameter> parameters = drawn_case(GetParam(), 7, at::kDouble).parameters;
  for (std::size_t index = 0; index < parameters.size(); ++index)
    parameters[index].tensor.detach().copy_(drawn.own[index].detach());
  Optimizer second(drawn.settings, parameters);
  const auto from = first.state();
  const auto to = second.state();
  std::vector<Optimizer::Named> counts;
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t index = 0; index < from.size(); ++index) {
    ASSERT_EQ(from[index].first, to[index].first);
    to[index].second.copy_(from[index].second);
    if (from[index].first.starts_with(updates_name)) counts.push_back(to[index]);
  }
  second.resume(first.updates(), counts);
  draw_gradients(drawn, random);
  for (std::size_t index = 0; index < parameters.size(); ++index)
    parameters[index].tensor.mutable_grad() = drawn.own[index].grad();
  first.update(drawn.learning_rate);
  second.update(drawn.learning_rate);
  for (std::size_t index = 0; index < parameters.size(); ++index)
    EXPECT_TRUE(at::equal(parameters[index].tensor, drawn.own[index])) << parameters[index].name;
}

INSTANTIATE_TEST_SUITE_P(Kinds, AgainstTorch, testing::Values("sgd", "adamw"));

TEST(Optimizer, CheckpointsWithOneCountForAllResumeWithIt) {
  const OptimizerSettings settings;
  std::vector<at::Tensor> weights;
  for (const bool old : {false, true}) {
    at::Tensor weight = at::ones({3}, at::kDouble).set_requires_grad(true);
    Optimizer optimizer(settings, {{"weight", weight}});
    if (old)
      optimizer.resume(4);
    else
      optimizer.resume(9, {{"updates.weight", at::scalar_tensor(4, at::kLong)}});
    weight.mutable_grad() = at::ones({3}, at::kDouble);
    optimizer.update(0.1);
    weights.push_back(weight.detach());
  }
  EXPECT_TRUE(at::equal(weights[0], weights[1]));
}

TEST(Optimizer, ATensorUnderTwoNamesIsUpdatedOnce) {
  at::Tensor weight = at::ones({3}, at::kDouble).set_requires_grad(true);
  OptimizerSettings settings;
  settings.kind = OptimizerKind::Sgd;
  Optimizer optimizer(settings, {{"a.weight", weight}, {"b.weight", weight}});
  weight.mutable_grad() = at::ones({3}, at::kDouble);
  optimizer.update(0.25);
  EXPECT_EQ(weight[0].item<double>(), 0.75);
  EXPECT_EQ(optimizer.state().size(), 1U);
}

TEST(Optimizer, SparseGradientsUpdateAsDenseOnesDo) {
  at::Tensor weight = at::ones({3, 2}, at::kDouble).set_requires_grad(true);
  OptimizerSettings settings;
  settings.kind = OptimizerKind::Sgd;
  settings.weight_decay = 0;
  Optimizer optimizer(settings, {{"weight", weight}});
  weight.mutable_grad() = at::sparse_coo_tensor(at::ones({1, 1}, at::kLong), at::ones({1, 2}, at::kDouble), {3, 2});
  optimizer.update(0.25);
  EXPECT_EQ(weight.sum().item<double>(), 5.5);
}

TEST(Optimizer, RulesOutOfRangeAreRefused) {
  OptimizerSettings settings;
  settings.rules = {{"*.bias", -0.1}};
  EXPECT_THAT([&] { Optimizer(settings, {}); }, ThrowsMessage<Error>(HasSubstr("rule for \"*.bias\"")));
  settings.rules = {{"*.bias", {}, -1}};
  EXPECT_THAT([&] { Optimizer(settings, {}); }, ThrowsMessage<Error>(HasSubstr("a factor of -1")));
}

TEST(Optimizer, AnotherLibrarysUpdatesEachParameterOnce) {
  const at::Tensor weight = at::ones({2, 2});
  const at::Tensor bias = at::zeros({2});
  std::vector<std::string> names;
  std::int64_t resumed = 0;
  std::vector<OutsideOptimizer::Named> kept;
  const MakeOptimizer make = [&](const std::vector<UpdatedParameter>& parameters) {
    for (const UpdatedParameter& parameter : parameters) names.push_back(parameter.name);
    OutsideOptimizer made;
    made.update = [parameters](double) {
      for (const UpdatedParameter& parameter : parameters) parameter.tensor.add_(1);
    };
    made.state = [] { return std::vector<OutsideOptimizer::Named>{{"sum.layers.0.weight", at::ones({1})}}; };
    made.resume = [&](const auto& state, std::int64_t updates) {
      kept = state;
      resumed = updates;
    };
    return made;
  };
  Optimizer optimizer({}, {{"layers.0.weight", weight}, {"layers.0.bias", bias}, {"layers.1.weight", weight}}, make);
  EXPECT_TRUE(optimizer.is_outside());
  EXPECT_THAT(names, testing::ElementsAre("layers.0.weight", "layers.0.bias"));
  optimizer.update(0.1);
  EXPECT_EQ(weight.sum().item<double>(), 8);
  EXPECT_EQ(bias.sum().item<double>(), 2);
  EXPECT_EQ(optimizer.updates(), 1);
  ASSERT_EQ(optimizer.state().size(), 1U);
  optimizer.resume_outside(7, optimizer.state());
  EXPECT_EQ(resumed, 7);
  EXPECT_EQ(optimizer.updates(), 7);
  EXPECT_EQ(kept.size(), 1U);
  EXPECT_THROW(optimizer.keep(), InvariantViolation);
}

TEST(Optimizer, AnotherLibrarysHasNoRulesAndIsNotMadeForNothing) {
  const MakeOptimizer make = [](const std::vector<UpdatedParameter>&) -> OutsideOptimizer {
    throw InvariantViolation("made for nothing");
  };
  Optimizer optimizer({}, {}, make);
  optimizer.update(0.1);
  EXPECT_TRUE(optimizer.state().empty());
  EXPECT_EQ(optimizer.updates(), 1);
  OptimizerSettings settings;
  settings.rules = {{"*.bias", 0.1}};
  EXPECT_THAT([&] { Optimizer(settings, {}, make); }, ThrowsMessage<Error>(HasSubstr("parameter groups of its own")));
}

}  // namespace
}  // namespace penstock::optimizer_test
