// Operations that draw, each within a scope, on many threads, and which of libtorch's a scope reaches at all.
#include <atomic>
#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/dropout.h"

#include "random_kinds.h"

TORCH_LIBRARY(penstock_draws_test, library) {
  library.def("shared_noise(Tensor input, float p=0.5) -> Tensor", {at::Tag::nondeterministic_seeded});
  library.def("own_noise(Tensor input, Generator? generator=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(penstock_draws_test, CPU, library) {
  // Past all operations, as a fused kernel does.
  library.impl("shared_noise", [](const at::Tensor& input, double p) {
    auto* generator = at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator());
    return input + p * generator->random();
  });
  library.impl("own_noise", [](const at::Tensor& input, std::optional<at::Generator> generator) {
    return input + at::empty_like(input).uniform_(0, 1, std::move(generator));
  });
}

namespace penstock {
namespace {

at::Tensor shared_state() { return at::detail::getDefaultCPUGenerator().get_state(); }

at::Tensor draw(const RandomKind& kind, const DrawPlace& place) {
  const at::NoGradGuard no_graph;
  const DrawScope scope(place);
  return kind.second(at::full({3, 4, 8}, 0.5F));
}

at::Tensor call(const char* name, const at::Tensor& input) {
  torch::jit::Stack stack{input};
  const auto operation = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  for (std::size_t index = 1; index < operation.schema().arguments().size(); ++index)
    stack.push_back(operation.schema().arguments()[index].default_value().value_or(c10::IValue()));
  operation.callBoxed(stack);
  return stack.front().toTensor();
}

TEST(Draws, AreThoseOfTheirPlaceOnAnyThreadAndLeaveTheSharedGeneratorAlone) {
  torch::manual_seed(1);
  for (const RandomKind& kind : random_kinds()) {
    SCOPED_TRACE(kind.first);
    const DrawPlace place{1, 2, 3, 4};
    const at::Tensor before = shared_state();
    const at::Tensor first = draw(kind, place);
    EXPECT_TRUE(at::equal(before, shared_state()));
    std::atomic<int> others{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread)
      threads.emplace_back([&, thread] {
        for (int turn = 0; turn < 10; ++turn) {
          static_cast<void>(draw(kind, {1, 2, 3, thread + 5}));
          if (!at::equal(draw(kind, place), first)) ++others;
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(others, 0);
    EXPECT_TRUE(at::equal(before, shared_state()));
    for (const DrawPlace& other : {DrawPlace{2, 2, 3, 4}, {1, 3, 3, 4}, {1, 2, 4, 4}, {1, 2, 3, 5}}) {
      // One of few outcomes may be the same in two places.
      bool differs = false;
      for (std::int64_t step = 0; step < 8 && !differs; ++step)
        differs = !at::equal(draw(kind, {other.seed, other.step + 100 * step, other.microbatch, other.layer}), first);
      EXPECT_TRUE(differs);
    }
  }
}

TEST(Draws, GoOnWithinAScopeAndBeginAnewInTheNext) {
  const auto two = [] {
    const DrawScope scope({1, 2, 3, 4});
    return std::pair(at::rand({8}), at::rand({8}));
  };
  const auto [first, second] = two();
  EXPECT_FALSE(at::equal(first, second));
  EXPECT_TRUE(at::equal(two().second, second));
}

TEST(Draws, OfAScopeWithinAnotherLeaveTheOuterOneWhereItWas) {
  const DrawScope outer({1, 2, 3, 4});
  const at::Tensor first = at::rand({8});
  {
    const DrawScope inner({1, 2, 3, 4});
    EXPECT_TRUE(at::equal(at::rand({8}), first));
  }
  const at::Tensor second = at::rand({8});
  const DrawScope again({1, 2, 3, 4});
  static_cast<void>(at::rand({8}));
  EXPECT_TRUE(at::equal(at::rand({8}), second));
}

TEST(Draws, LeaveAGeneratorThatTheCallerBrought) {
  at::Generator own = at::detail::createCPUGenerator(7);
  at::Generator same = at::detail::createCPUGenerator(7);
  const DrawScope scope({1, 2, 3, 4});
  EXPECT_TRUE(at::equal(at::rand({8}, own), at::empty({8}).uniform_(0, 1, same)));
}

TEST(Draws, OutsideAScopeAreThoseOfTheSharedGenerator) {
  torch::manual_seed(3);
  const at::Tensor expected = at::rand({8});
  {
    const DrawScope scope({1, 2, 3, 4});
    static_cast<void>(at::rand({8}));
  }
  torch::manual_seed(3);
  EXPECT_TRUE(at::equal(at::rand({8}), expected));
}

TEST(Draws, AreRefusedByNameWhereNoGeneratorCanBeHandedOver) {
  reach_random_operations();
  const at::Tensor input = at::zeros({4});
  static_cast<void>(call("penstock_draws_test::shared_noise", input));
  const at::Tensor before = shared_state();
  const DrawScope scope({1, 2, 3, 4});
  EXPECT_THAT([&] { static_cast<void>(call("penstock_draws_test::shared_noise", input)); },
              testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("penstock_draws_test::shared_noise"),
                                                           testing::HasSubstr("instead"))));
  EXPECT_TRUE(at::equal(before, shared_state()));
}

TEST(Draws, OfAProgramsOwnOperationsComeFromTheScope) {
  reach_random_operations();
  const auto noise = [] {
    const DrawScope scope({1, 2, 3, 4});
    return call("penstock_draws_test::own_noise", at::zeros({4}));
  };
  const at::Tensor before = shared_state();
  EXPECT_TRUE(at::equal(noise(), noise()));
  EXPECT_TRUE(at::equal(before, shared_state()));
}

TEST(Draws, AreRefusedInABackwardPassAndOnAThreadThatLibtorchHandsTheScopeOnTo) {
  {
    const DrawScope refusing = DrawScope::refusing();
    EXPECT_THAT([] { static_cast<void>(at::rand({2})); },
                testing::ThrowsMessage<Error>(testing::HasSubstr("backward")));
    const DrawScope inner({1, 2, 3, 4});
    EXPECT_NO_THROW(static_cast<void>(at::rand({2})));
  }
  const DrawScope scope({1, 2, 3, 4});
  std::promise<std::string> said;
  at::launch([&] {
    try {
      static_cast<void>(at::rand({2}));
      said.set_value("");
    } catch (const Error& error) {
      said.set_value(error.what());
    }
  });
  EXPECT_THAT(said.get_future().get(), testing::HasSubstr("without a DrawScope"));
}

// Arguments of about the right kind for any operation that draws.
std::optional<torch::jit::Stack> arguments_for(const c10::FunctionSchema& schema) {
  torch::jit::Stack stack;
  for (const c10::Argument& argument : schema.arguments()) {
    const std::string type = argument.type()->str();
    const std::string& name = argument.name();
    if (argument.is_out())
      stack.emplace_back(at::empty({0}, name == "out1" ? at::kBool : at::kFloat));
    else if (type == "Tensor")
      stack.emplace_back(at::full({3, 4, 4}, name == "high" ? 5.0F : 0.5F));
    else if (type == "Tensor?" || type == "Generator?")
      stack.emplace_back();
    else if (type == "float")
      stack.emplace_back(0.5);
    else if (type == "int" && name == "low")
      stack.emplace_back(1);
    else if (type == "int" || type == "SymInt" || type == "int?")
      stack.emplace_back(name == "dtype" ? static_cast<std::int64_t>(at::kFloat) : 6);
    else if (type == "int[]" || type == "SymInt[]")
      stack.emplace_back(std::vector<std::int64_t>{3, 4});
    else if (type == "bool" || type == "bool?")
      stack.emplace_back(name == "train" || name == "training");
    else if (type.ends_with("?"))
      stack.emplace_back();
    else
      return std::nullopt;
  }
  return stack;
}

TEST(Draws, OfEveryTaggedOperationAreReachedOrRefused) {
  auto& dispatcher = c10::Dispatcher::singleton();
  std::set<std::string> tried;
  std::set<std::string> failed;
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const auto operation = dispatcher.findOp(name);
    if (!operation || !operation->hasSchema() || !operation->hasTag(at::Tag::nondeterministic_seeded)) continue;
    auto stack = arguments_for(operation->schema());
    if (!stack) {
      failed.insert(c10::toString(name) + ": arguments");
      continue;
    }
    const at::NoGradGuard no_graph;
    const at::Tensor before = shared_state();
    try {
      const DrawScope scope({1, 2, 3, 4});
      operation->callBoxed(*stack);
      tried.insert(c10::toString(name));
    } catch (const std::exception& error) {
      const std::string text = error.what();
      failed.insert(c10::toString(name) + ": " + text.substr(0, std::min<std::size_t>(text.find('\n'), 100)));
    }
    EXPECT_TRUE(at::equal(before, shared_state())) << name;
  }
  for (const auto& f : failed) std::cerr << f << "\n";
  EXPECT_GT(tried.size(), 100U);
}

}  // namespace
}  // namespace penstock
