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
#include "penstock/nn/batch_norm.h"
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
  return kind.second(at::arange(1, 97).view({3, 4, 8}) / 100.0);
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
    threads.reserve(4);
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

TEST(Draws, AreSeenByTheirScope) {
  const DrawScope none({1, 2, 3, 4});
  static_cast<void>(torch::dropout(at::ones({4}), 0.5, /*train=*/false) + 1);
  EXPECT_FALSE(none.has_drawn());
  static_cast<void>(torch::dropout(at::ones({4}), 0.5, /*train=*/true));
  EXPECT_TRUE(none.has_drawn());
  const DrawScope keyed({1, 2, 3, 4});
  static_cast<void>(DrawScope::next_key());
  EXPECT_TRUE(keyed.has_drawn());
}

TEST(Draws, LeaveAGeneratorThatTheCallerBrought) {
  at::Generator own = at::detail::createCPUGenerator(7);
  at::Generator same = at::detail::createCPUGenerator(7);
  const DrawScope scope({1, 2, 3, 4});
  EXPECT_TRUE(at::equal(at::rand({8}, own), at::empty({8}).uniform_(0, 1, same)));
  const RecomputeScope again;
  EXPECT_THAT([&] { static_cast<void>(at::rand({8}, own)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("a generator of the layer's own")));
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

// An argument of about the right kind for any operation that draws; none where only libtorch would know one.
std::optional<c10::IValue> argument_for(const c10::Argument& argument) {
  const std::string type = argument.type()->str();
  const std::string& name = argument.name();
  if (argument.is_out()) return at::empty({4, 4}, name == "out1" ? at::kBool : at::kFloat);
  if (type == "Tensor" && name == "high") return at::full({}, 5);
  if (type == "Tensor") return at::full({4, 4}, 0.5F);
  if (type.ends_with("?") && type != "bool?") return c10::IValue();
  if (type == "float" || type == "Scalar") return 0.5;
  if (type == "int" && (name == "low" || name == "from" || name == "dtype")) return 1;
  if (type == "int" || type == "SymInt") return 4;
  if (type == "int[]" || type == "SymInt[]") return std::vector<std::int64_t>{4, 4};
  if (type == "bool" || type == "bool?") return name == "train" || name == "training";
  return std::nullopt;
}

std::optional<torch::jit::Stack> arguments_for(const c10::FunctionSchema& schema) {
  torch::jit::Stack stack;
  for (const c10::Argument& argument : schema.arguments()) {
    auto value = argument_for(argument);
    if (!value) return std::nullopt;
    stack.push_back(std::move(*value));
  }
  return stack;
}

// Whether an operation could be called within a scope; it has then left the shared generator alone.
bool is_reached(const c10::OperatorHandle& operation) {
  auto stack = arguments_for(operation.schema());
  if (!stack) return false;
  const at::NoGradGuard no_graph;
  const DrawScope scope({1, 2, 3, 4});
  try {
    operation.callBoxed(*stack);
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

TEST(Draws, OfAllOperationsWithTheTagLeaveTheSharedGeneratorAlone) {
  auto& dispatcher = c10::Dispatcher::singleton();
  std::set<std::string> reached;
  std::set<std::string> others;  // with a kernel for the host
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const auto operation = dispatcher.findOp(name);
    if (!operation || !operation->hasSchema() || !operation->hasTag(at::Tag::nondeterministic_seeded)) continue;
    const at::Tensor before = shared_state();
    const bool is = is_reached(*operation);
    EXPECT_TRUE(at::equal(before, shared_state())) << name;
    if (is) reached.insert(c10::toString(name));
    if (!is && operation->hasKernelForDispatchKey(c10::DispatchKey::CPU)) others.insert(c10::toString(name));
  }
  EXPECT_GT(reached.size(), 100U);
  // Refused, or by themselves without dropout, or of arguments that are not made here; their kin are there.
  EXPECT_THAT(others, testing::IsSubsetOf({"aten::_scaled_dot_product_flash_attention_for_cpu", "aten::multinomial.out",
                                           "aten::normal.Tensor_float_out", "penstock_draws_test::shared_noise"}));
}

}  // namespace
}  // namespace penstock
