// The invariant of src/exec/split_backward.h on drawn graphs: I and W run every node once and give the bits of B.
#include <cstdint>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/record_function.h>
#include <torch/torch.h>

#include "penstock/exec/stage.h"

#include "drawn_cases.h"

namespace penstock {
namespace {

constexpr std::int64_t width = 4;

// Counts how often backward ran: a function of one's own, which must never run twice.
struct Pair : torch::autograd::Function<Pair> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                                                const at::Tensor& w, std::int64_t* runs) {
    context->save_for_backward({x, w});
    context->saved_data["runs"] = reinterpret_cast<std::int64_t>(runs);
    return {x * w, x + w};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    // libtorch keeps a number for the function, no pointer.  NOLINTNEXTLINE(performance-no-int-to-ptr)
    ++*reinterpret_cast<std::int64_t*>(context->saved_data["runs"].toInt());
    const auto saved = context->get_saved_variables();
    return {gradients[0] * saved[1] + gradients[1], gradients[0] * saved[0] + gradients[1], at::Tensor()};
  }
};

// What a drawn layer noticed while it ran.
struct Noticed {
  std::int64_t own_backwards = 0;
  std::map<std::string, int> hooks;  // by the name of the hook, how often it fired

  friend bool operator==(const Noticed&, const Noticed&) = default;
};

// A layer whose graph is drawn from a seed: parameters used in several places, outputs that no input leads to, nodes of
// several outputs, functions of one's own, hooks, detached and in-place parts.
class DrawnLayer : public torch::nn::Module {
 public:
  DrawnLayer(std::uint64_t seed, int outputs, std::shared_ptr<Noticed> noticed)
      : seed_(seed), outputs_(outputs), noticed_(std::move(noticed)) {
    for (int index = 0; index < 3; ++index) {
      matrices_.push_back(register_parameter(fmt::format("matrix{}", index), torch::randn({width, width}) * 0.5));
      vectors_.push_back(register_parameter(fmt::format("vector{}", index), torch::randn({width})));
    }
    register_hooks();
  }

  Tensors forward(const Tensors& inputs) {
    generator_.seed(seed_);
    values_ = inputs;
    const int operations = 4 + below(12);
    for (int operation = 0; operation < operations; ++operation) values_.push_back(drawn_operation(operation));
    Tensors outputs;
    for (int output = 0; output < outputs_; ++output) outputs.push_back(value());
    values_.clear();
    return outputs;
  }

 private:
  int below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(generator_); }
  const at::Tensor& value() { return values_[static_cast<std::size_t>(below(static_cast<int>(values_.size())))]; }
  const at::Tensor& matrix() { return matrices_[static_cast<std::size_t>(below(3))]; }
  const at::Tensor& vector() { return vectors_[static_cast<std::size_t>(below(3))]; }

  void count(const std::string& name) { ++noticed_->hooks[name]; }

  void register_hooks() {
    matrices_[0].register_hook([this](const at::Tensor& gradient) {
      count("matrix0");
      return gradient * 2;
    });
    vectors_[0].register_hook([this](const at::Tensor&) { count("vector0"); });
  }

  at::Tensor drawn_operation(int number) {
    switch (below(15)) {
      case 0:
      case 1:
        return torch::matmul(value(), matrix());
      case 2:
        return torch::addmm(vector(), value(), matrix());
      case 3:
        return torch::matmul(torch::matmul(value(), matrices_[1]), matrices_[1]);
      case 4:
        return value() + vector();
      case 5:
        return torch::tanh(value()) * value();
      case 6: {
        const auto halves = torch::matmul(value(), matrix()).chunk(2, -1);
        return torch::cat({halves[1], halves[0] * 2}, -1);
      }
      case 7: {
        const auto halves = matrix().chunk(2, 0);
        return torch::matmul(value(), torch::cat({halves[1], torch::tanh(halves[0])}, 0));
      }
      case 8: {
        const auto pair = Pair::apply(value(), matrix(), &noticed_->own_backwards);
        return pair[0] + torch::sigmoid(pair[1]);
      }
      case 9:
        return torch::tanh(matrix()) + matrix();
      case 10:
        return value() + (value() * 3).detach();
      case 11: {
        at::Tensor hooked = torch::matmul(value(), matrix());
        if (hooked.requires_grad())
          hooked.register_hook([this, number](const at::Tensor& gradient) {
            count(fmt::format("activation {}", number));
            return gradient * 0.5;
          });
        return hooked;
      }
      case 12: {
        // In place on a view of what is new.
        at::Tensor changed = value() * 2;
        changed.narrow(1, 0, 2).mul_(matrix().narrow(1, 1, 2));
        changed.select(0, 1).add_(vector());
        return changed;
      }
      case 13:
        return (value() * vector().expand({width, width})).relu_();
      default: {
        const at::Tensor weight = vector().unsqueeze(1) * matrix() / matrix().square().sum(-1, true).add(1).sqrt();
        return torch::layer_norm(torch::matmul(value(), weight.t()), {width}, vector(), vector());
      }
    }
  }

  std::uint64_t seed_;
  int outputs_;
  std::shared_ptr<Noticed> noticed_;
  std::vector<at::Tensor> matrices_;
  std::vector<at::Tensor> vectors_;
  Tensors values_;
  std::mt19937_64 generator_;
};

// Which nodes the engine ran on this thread, by name and sequence number, and how often.
class ExecutedNodes {
 public:
  using Key = std::pair<std::string, std::int64_t>;

  ExecutedNodes() {
    current() = this;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback([](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
          ++current()->runs_[{function.name(), function.seqNr()}];
          return nullptr;
        }).scopes({at::RecordScope::BACKWARD_FUNCTION}));
  }
  ExecutedNodes(const ExecutedNodes&) = delete;
  ExecutedNodes& operator=(const ExecutedNodes&) = delete;
  ExecutedNodes(ExecutedNodes&&) = delete;
  ExecutedNodes& operator=(ExecutedNodes&&) = delete;
  ~ExecutedNodes() { at::removeCallback(handle_); }

  // Without the executor's own nodes.
  [[nodiscard]] std::map<Key, int> runs() const {
    std::map<Key, int> runs;
    for (const auto& [key, count] : runs_)
      if (key.first.find("Gradient") == std::string::npos && key.first.find("GraphRoot") == std::string::npos)
        runs[key] = count;
    return runs;
  }
  [[nodiscard]] int of(const std::string& name) const {
    int count = 0;
    for (const auto& [key, runs] : runs_)
      if (key.first.find(name) != std::string::npos) count += runs;
    return count;
  }

 private:
  static ExecutedNodes*& current() {
    thread_local ExecutedNodes* nodes = nullptr;
    return nodes;
  }
  at::CallbackHandle handle_{};
  std::map<Key, int> runs_;
};

struct Drawn {
  std::uint64_t seed = 0;
  int inputs = 1;
  int outputs = 1;
  bool recompute = false;
  std::vector<bool> input_takes_gradient;
  std::vector<bool> output_has_gradient;
};

Drawn draw(std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto below = [&](int end) { return std::uniform_int_distribution<int>(0, end - 1)(generator); };
  Drawn drawn{seed, 1 + below(3), 1 + below(3), below(3) == 0, {}, {}};
  for (int input = 0; input < drawn.inputs; ++input) drawn.input_takes_gradient.push_back(below(4) != 0);
  for (int output = 0; output < drawn.outputs; ++output) drawn.output_has_gradient.push_back(below(5) != 0);
  return drawn;
}

constexpr int microbatches = 3;

struct Outcome {
  std::vector<Tensors> inputs;  // gradients, by microbatch
  Tensors parameters;           // gradients
  Noticed noticed;
  std::map<ExecutedNodes::Key, int> runs;
  int accumulations = 0;
};

Outcome run(const Drawn& drawn, bool split) {
  torch::manual_seed(drawn.seed);
  auto noticed = std::make_shared<Noticed>();
  StageParts parts;
  parts.stage = {1};
  parts.first_layer = 1;
  parts.recompute = {drawn.recompute};
  parts.layers.emplace_back(std::make_shared<DrawnLayer>(drawn.seed, drawn.outputs, noticed));
  Stage stage(std::move(parts));
  stage.begin({.microbatches = microbatches});
  std::vector<Tensors> gradients(microbatches);
  Outcome outcome;
  outcome.inputs.resize(microbatches);
  for (std::int32_t microbatch = 0; microbatch < microbatches; ++microbatch) {
    Tensors inputs;
    for (int input = 0; input < drawn.inputs; ++input)
      inputs.push_back(torch::randn({width, width}).requires_grad_(drawn.input_takes_gradient[std::size_t(input)]));
    const Tensors outputs = stage.forward({microbatch}, std::move(inputs), {});
    for (std::size_t output = 0; output < outputs.size(); ++output)
      gradients[std::size_t(microbatch)].push_back(
          drawn.output_has_gradient[output] ? torch::randn_like(outputs[output]) : at::Tensor());
  }
  const ExecutedNodes executed;
  const auto input_backward = [&](std::int32_t microbatch) {
    outcome.inputs[std::size_t(microbatch)] =
        stage.input_backward({microbatch}, std::move(gradients[std::size_t(microbatch)]));
  };
  if (split) {
    input_backward(0);
    input_backward(1);
    stage.weight_backward({0});
    input_backward(2);
    stage.weight_backward({1});
    stage.weight_backward({2});
  } else {
    for (std::int32_t microbatch = 0; microbatch < microbatches; ++microbatch)
      outcome.inputs[std::size_t(microbatch)] =
          stage.backward({microbatch}, std::move(gradients[std::size_t(microbatch)]));
  }
  for (const at::Tensor& parameter : stage.layers().front().module().parameters())
    outcome.parameters.push_back(parameter.grad());
  outcome.noticed = *noticed;
  outcome.runs = executed.runs();
  outcome.accumulations = executed.of("AccumulateGrad");
  return outcome;
}

void expect_same(const Tensors& expected, const Tensors& got, const std::string& of) {
  ASSERT_EQ(expected.size(), got.size());
  for (std::size_t index = 0; index < expected.size(); ++index) {
    ASSERT_EQ(expected[index].defined(), got[index].defined()) << of << " " << index;
    if (!expected[index].defined()) continue;
    EXPECT_TRUE(at::equal(expected[index], got[index])) << of << " " << index;
    EXPECT_EQ(expected[index].strides(), got[index].strides()) << of << " " << index;
  }
}

TEST(DrawnSplitBackward, RunsEveryNodeOnceAndHasTheBitsOfTheWholeBackward) {
  int several = 0;
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(drawn_cases(400)) && !testing::Test::HasFailure();
       ++seed) {
    const Drawn drawn = draw(seed);
    SCOPED_TRACE(fmt::format("seed {}, {} inputs, {} outputs, recomputed {}", seed, drawn.inputs, drawn.outputs,
                             drawn.recompute));
    const Outcome whole = run(drawn, false);
    const Outcome split = run(drawn, true);
    for (std::size_t microbatch = 0; microbatch < microbatches; ++microbatch)
      expect_same(whole.inputs[microbatch], split.inputs[microbatch], fmt::format("input of {}", microbatch));
    expect_same(whole.parameters, split.parameters, "parameter");
    EXPECT_EQ(whole.noticed, split.noticed);
    EXPECT_EQ(whole.accumulations, split.accumulations);
    // Sequence numbers go on from run to run: only how often each kind ran can be compared, and that no node of I and W
    // together ran more than in two halves.
    std::map<std::string, int> nodes_of_whole;
    std::map<std::string, int> nodes_of_split;
    for (const auto& [key, count] : whole.runs) {
      if (key.second >= 0) {
        EXPECT_EQ(count, 1) << key.first;
      }
      ++nodes_of_whole[key.first];
    }
    for (const auto& [key, count] : split.runs) {
      if (key.second < 0) continue;
      EXPECT_LE(count, 2) << key.first;
      several += count - 1;
      if (key.first.find("Pair") != std::string::npos) {
        EXPECT_EQ(count, 1) << key.first;
      }
    }
    for (const auto& [key, count] : split.runs) ++nodes_of_split[key.first];
    EXPECT_EQ(nodes_of_whole, nodes_of_split);
  }
  EXPECT_GT(several, 0) << "no node was ever divided";
}

// A hook on an output sees the gradient that came from the next stage, and what it returns goes on.
TEST(SplitBackwardHooks, FireOnceOnWhatAStageTakesAndReturns) {
  struct Hooked : torch::nn::Module {
    explicit Hooked(std::vector<std::string>& names) : linear(torch::nn::Linear(width, width)), fired(names) {
      register_module("linear", linear);
    }
    at::Tensor forward(const at::Tensor& input) {
      input.register_hook([this](const at::Tensor& gradient) {
        fired.emplace_back("input");
        return gradient * 3;
      });
      at::Tensor output = linear(input);
      output.retain_grad();
      output.register_hook([this](const at::Tensor&) { fired.emplace_back("output"); });
      kept = output;
      return output;
    }
    torch::nn::Linear linear;
    std::vector<std::string>& fired;
    at::Tensor kept;
  };
  for (const bool split : {false, true}) {
    torch::manual_seed(1);
    std::vector<std::string> fired;
    auto module = std::make_shared<Hooked>(fired);
    StageParts parts;
    parts.stage = {1};
    parts.first_layer = 1;
    parts.layers.emplace_back(module);
    Stage stage(std::move(parts));
    stage.begin({});
    const at::Tensor gradient = torch::ones({2, width});
    static_cast<void>(stage.forward({0}, {torch::ones({2, width}).requires_grad_()}, {}));
    Tensors of_input;
    if (split) {
      of_input = stage.input_backward({0}, {gradient});
      stage.weight_backward({0});
    } else {
      of_input = stage.backward({0}, {gradient});
    }
    EXPECT_EQ(fired, (std::vector<std::string>{"output", "input"})) << split;
    EXPECT_TRUE(at::equal(of_input.at(0), torch::matmul(gradient, module->linear->weight.detach()) * 3)) << split;
    EXPECT_TRUE(module->kept.grad().defined() && at::equal(module->kept.grad(), gradient)) << split;
  }
}

}  // namespace
}  // namespace penstock
