#include <chrono>
#include <fmt/format.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif
#include <thread>

#include <torch/torch.h>

#include "penstock/nn/networks.h"

namespace penstock {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Linux may wake a sleeper 50 microseconds late unless the thread says that it minds.
void ask_for_exact_wakeups() {
#if defined(__linux__)
  thread_local const int asked = ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  static_cast<void>(asked);
#endif
}

void wait(double milliseconds) {
  ask_for_exact_wakeups();
  std::this_thread::sleep_until(std::chrono::steady_clock::now() +
                                std::chrono::duration<double, std::milli>(milliseconds));
}

class Wait : public torch::autograd::Function<Wait> {
 public:
  static Variable forward(AutogradContext* context, const Variable& input, const Variable& /*weight*/,
                          const WaitingTimes& times) {
    // Where there is no input to differentiate, all of the backward is the weight's.
    const bool splits = input.requires_grad();
    context->saved_data["input_backward_ms"] = splits ? times.input_backward_ms : 0;
    context->saved_data["weight_backward_ms"] = times.weight_backward_ms + (splits ? 0 : times.input_backward_ms);
    wait(times.forward_ms);
    return input.clone();
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    // The engine asks for the input's gradient, the weight's or both: I, W or B.
    const bool for_input = context->needs_input_grad(0);
    const bool for_weight = context->needs_input_grad(1);
    double milliseconds = 0;
    if (for_input) milliseconds += context->saved_data["input_backward_ms"].toDouble();
    if (for_weight) milliseconds += context->saved_data["weight_backward_ms"].toDouble();
    wait(milliseconds);
    return {for_input ? gradients.front() : Variable(), for_weight ? at::zeros({1, 1}) : Variable(), Variable()};
  }
};

class WaitingLayer : public torch::nn::Module {
 public:
  // The parameter has no use but that a network without parameters has no backward pass. A matrix: the gradients of
  // vectors are not worth putting off.
  explicit WaitingLayer(const WaitingTimes& times)
      : times_(times), weight_(register_parameter("weight", torch::zeros({1, 1}))) {}

  at::Tensor forward(const at::Tensor& input) { return Wait::apply(input, weight_, times_); }

 private:
  WaitingTimes times_;
  at::Tensor weight_;
};

}  // namespace

LayerSpec waiting_layer(const WaitingTimes& times) {
  return {"waiting",
          fmt::format("waiting {} {} {}", times.forward_ms, times.input_backward_ms, times.weight_backward_ms),
          [times] { return Layer(std::make_shared<WaitingLayer>(times)); }};
}

}  // namespace penstock
