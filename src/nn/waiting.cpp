#include <chrono>
#include <fmt/format.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif
#include <string>
#include <thread>
#include <utility>

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/torch.h>

#include "penstock/nn/graph_node.h"
#include "penstock/nn/networks.h"

namespace penstock {
namespace {

using torch::autograd::edge_list;
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

// A node of the kind that is divided between I and W.
class WaitBackward final : public torch::autograd::TraceableFunction {
 public:
  WaitBackward(edge_list edges, const WaitingTimes& times) : TraceableFunction(std::move(edges)), times_(times) {}
  [[nodiscard]] std::string name() const override { return "WaitBackward"; }

 protected:
  variable_list apply(variable_list&& gradients) override {
    // The engine asks for the input's gradient, the weight's or both: I, W or B.
    const bool for_input = task_should_compute_output(0);
    const bool for_weight = task_should_compute_output(1);
    double milliseconds = 0;
    if (for_input) milliseconds += times_.input_backward_ms;
    if (for_weight) milliseconds += times_.weight_backward_ms;
    wait(milliseconds);
    return {for_input ? std::move(gradients.front()) : Variable(), for_weight ? at::zeros({1, 1}) : Variable()};
  }

 private:
  WaitingTimes times_;
};

at::Tensor wait_forward(const at::Tensor& input, const at::Tensor& weight, WaitingTimes times) {
  at::Tensor output = input.detach().clone();
  wait(times.forward_ms);
  if (!torch::autograd::compute_requires_grad(input, weight)) return output;
  // Where there is no input to differentiate, all of the backward is the weight's.
  if (!input.requires_grad()) times.weight_backward_ms += std::exchange(times.input_backward_ms, 0);
  const auto backward = make_node<WaitBackward>(torch::autograd::collect_next_edges(input, weight), times);
  torch::autograd::set_history(output, backward.owner);
  return output;
}

class WaitingLayer : public torch::nn::Module {
 public:
  // The parameter has no use but that a network without parameters has no backward pass. A matrix: the gradients of
  // vectors are not worth putting off.
  explicit WaitingLayer(const WaitingTimes& times)
      : times_(times), weight_(register_parameter("weight", torch::zeros({1, 1}))) {}

  at::Tensor forward(const at::Tensor& input) { return wait_forward(input, weight_, times_); }

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
