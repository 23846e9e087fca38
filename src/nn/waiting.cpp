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
                          double forward_ms, double backward_ms) {
    context->saved_data["backward_ms"] = backward_ms;
    wait(forward_ms);
    return input.clone();
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    wait(context->saved_data["backward_ms"].toDouble());
    return {gradients.front(), Variable(), Variable(), Variable()};
  }
};

class WaitingLayer : public torch::nn::Module {
 public:
  // The parameter has no use but that a network without parameters has no backward pass.
  WaitingLayer(double forward_ms, double backward_ms)
      : forward_ms_(forward_ms), backward_ms_(backward_ms), weight_(register_parameter("weight", torch::zeros({1}))) {}

  at::Tensor forward(const at::Tensor& input) { return Wait::apply(input, weight_, forward_ms_, backward_ms_); }

 private:
  double forward_ms_;
  double backward_ms_;
  at::Tensor weight_;
};

}  // namespace

LayerSpec waiting_layer(double forward_ms, double backward_ms) {
  return {"waiting", fmt::format("waiting {} {}", forward_ms, backward_ms),
          [forward_ms, backward_ms] { return Layer(std::make_shared<WaitingLayer>(forward_ms, backward_ms)); }};
}

}  // namespace penstock
