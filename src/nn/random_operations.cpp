// Every operation that draws, and how a DrawScope's generator reaches it.
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/dropout.h"

#include "nn/generators.h"

namespace penstock {
namespace {

using Arguments = c10::ArrayRef<c10::IValue>;
using torch::jit::Stack;

Arguments arguments_of(const c10::OperatorHandle& operation, const Stack& stack) {
  const std::size_t count = operation.schema().arguments().size();
  return Arguments(stack).slice(stack.size() - count, count);
}

bool takes_generator(const c10::Argument& argument) {
  const c10::TypePtr& type = argument.type();
  if (const auto optional = type->cast<c10::OptionalType>())
    return optional->getElementType()->kind() == c10::TypeKind::GeneratorType;
  return type->kind() == c10::TypeKind::GeneratorType;
}

bool takes_generator(const c10::FunctionSchema& schema) {
  return std::any_of(schema.arguments().begin(), schema.arguments().end(),
                     [](const c10::Argument& argument) { return takes_generator(argument); });
}

at::Device with_index(at::Device device) {
  if (device.is_cpu() || device.has_index()) return device;
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

// Where an operation computes: on the device that it is told, or on that of its tensors, among which there may be
// numbers on the host.
at::Device device_of(Arguments arguments) {
  at::Device found = at::kCPU;
  for (const c10::IValue& argument : arguments) {
    if (argument.isDevice()) return with_index(argument.toDevice());
    if (argument.isTensor() && argument.toTensor().defined() && !argument.toTensor().device().is_cpu())
      found = argument.toTensor().device();
    if (!argument.isTensorList()) continue;
    for (const at::Tensor& tensor : argument.toTensorVector())
      if (tensor.defined() && !tensor.device().is_cpu()) found = tensor.device();
  }
  return found;
}

bool is_shared(const c10::IValue& generator) {
  if (generator.isNone()) return true;
  const at::Generator given = generator.toGenerator();
  return given == at::globalContext().defaultGenerator(given.device());
}

// What lies below keeps the key: an operation that is made of others hands it on to them.
void redispatch(const c10::OperatorHandle& operation, c10::DispatchKeySet keys, Stack* stack) {
  operation.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, draw_key), stack);
}

// Whether the arguments let it draw: neither with a probability of 0 nor outside of training.
bool draws(const c10::OperatorHandle& operation, Arguments given) {
  const auto& arguments = operation.schema().arguments();
  for (std::size_t index = 0; index < arguments.size(); ++index) {
    const std::string& name = arguments[index].name();
    const bool probability = name == "p" || name == "dropout" || name == "dropout_p";
    if (probability && given[index].isDouble() && given[index].toDouble() == 0) return false;
    if ((name == "train" || name == "training") && given[index].isBool() && !given[index].toBool()) return false;
  }
  return true;
}

void hand_generator(const c10::OperatorHandle& operation, c10::DispatchKeySet keys, Stack* stack) {
  const Arguments given = arguments_of(operation, *stack);
  const at::Device device = device_of(given);
  if (device.is_meta() || !draws(operation, given)) return redispatch(operation, keys, stack);
  const auto& arguments = operation.schema().arguments();
  const std::size_t first = stack->size() - arguments.size();
  for (std::size_t index = 0; index < arguments.size(); ++index) {
    c10::IValue& generator = (*stack)[first + index];
    if (!takes_generator(arguments[index])) continue;
    if (is_shared(generator))
      generator = DrawScope::generator(device, operation.operator_name().name);
    else if (RecomputeScope::active() && !DrawScope::owns(generator.toGenerator()))
      throw bad_input(fmt::format("{} draws from a generator of the layer's own, which has gone on since the first run",
                                  operation.operator_name().name),
                      "the same numbers when a layer is run again",
                      "give it no generator, so that it draws from the DrawScope, or do not recompute the layer");
  }
  redispatch(operation, keys, stack);
}

void refuse_draws(const c10::OperatorHandle& operation, c10::DispatchKeySet keys, Stack* stack) {
  if (draws(operation, arguments_of(operation, *stack)))
    throw bad_input(
        fmt::format("{} draws from a generator that all threads share", c10::toString(operation.operator_name())),
        "operations that take a generator, or are made of others that do",
        "use torch::dropout, torch::bernoulli or torch::rand, and attention made of softmax and these, instead");
  redispatch(operation, keys, stack);
}

// On the host it is made of others. Elsewhere it is one kernel that takes no generator; here are its parts.
void native_dropout(const c10::OperatorHandle& operation, c10::DispatchKeySet keys, Stack* stack) {
  const Arguments given = arguments_of(operation, *stack);
  if (device_of(given).is_cpu() || !draws(operation, given)) return redispatch(operation, keys, stack);
  const at::Tensor input = given[0].toTensor();
  const double kept = 1 - given[1].toDouble();
  const at::Tensor mask = at::empty_like(input, input.options().dtype(at::kBool)).bernoulli_(kept);
  const at::Tensor output = input.mul(mask).mul(kept == 0 ? 0 : 1 / kept);
  torch::jit::drop(*stack, given.size());
  torch::jit::push(*stack, output, mask);
}

// These take no generator, but are made of others that do, or draw nothing. Of the others with the tag those that are
// made of others under autograd already (`CompositeImplicitAutograd`) say so themselves.
constexpr std::array made_of_others{"aten::rand",
                                    "aten::rand_like",
                                    "aten::randint",
                                    "aten::randint_like",
                                    "aten::randn",
                                    "aten::randn_like",
                                    "aten::randperm",
                                    "aten::native_dropout",
                                    "aten::_fused_sdp_choice",
                                    "aten::_nested_tensor_softmax_with_shape"};

bool is_made_of_others(const c10::OperatorHandle& operation) {
  return operation.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) ||
         std::find(made_of_others.begin(), made_of_others.end(), operation.operator_name().name) !=
             made_of_others.end();
}

// None: nothing has to be done.
std::optional<c10::KernelFunction> kernel_for(const c10::OperatorHandle& operation) {
  using c10::KernelFunction;
  if (takes_generator(operation.schema())) return KernelFunction::makeFromBoxedFunction<&hand_generator>();
  if (!operation.hasTag(at::Tag::nondeterministic_seeded)) return std::nullopt;
  if (operation.operator_name() == c10::OperatorName("aten::native_dropout", ""))
    return KernelFunction::makeFromBoxedFunction<&native_dropout>();
  if (is_made_of_others(operation)) return std::nullopt;
  return KernelFunction::makeFromBoxedFunction<&refuse_draws>();
}

// Each operation is looked at once. What was registered stays as long as the program.
struct Reached {
  std::unordered_set<c10::OperatorName> known;
  std::vector<c10::RegistrationHandleRAII> registrations;
};

void reach(Reached& reached) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const auto operation = dispatcher.findOp(name);
    if (!operation || !operation->hasSchema() || !reached.known.insert(name).second) continue;
    if (auto kernel = kernel_for(*operation))
      reached.registrations.push_back(dispatcher.registerImpl(name, draw_key, std::move(*kernel), std::nullopt, nullptr,
                                                              "penstock: draws of a DrawScope"));
  }
}

}  // namespace

void reach_random_operations() {
  static Reached reached;
  reach(reached);
}

// Operations without a kernel on the key pass it by when the key is looked up, which costs them nothing.
TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
  reach_random_operations();
}

}  // namespace penstock
