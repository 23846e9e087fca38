#include "models/feed_forward.h"

#include <tuple>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

at::Tensor bent(Activation activation, const at::Tensor& input) {
  switch (activation) {
    case Activation::Gelu:
      return at::gelu(input);
    case Activation::GeluTanh:
      return at::gelu(input, "tanh");
    case Activation::Silu:
      return at::silu(input);
  }
  throw InvariantViolation("an activation that there is not");
}

std::vector<ProjectionPart> widening(const DecoderSettings& settings) {
  if (settings.matrix_names == MatrixNames::Gpt2) return {{"c_fc", settings.inner_width}};
  if (!settings.gated) return {{"up_proj", settings.inner_width}};
  return {{"gate_proj", settings.inner_width}, {"up_proj", settings.inner_width}};
}

const char* narrowing(const DecoderSettings& settings) {
  return settings.matrix_names == MatrixNames::Gpt2 ? "c_proj" : "down_proj";
}

at::Tensor gated_half(Activation activation, const at::Tensor& both) {
  const std::vector<at::Tensor> halves = both.chunk(2, -1);
  return bent(activation, halves[0]) * halves[1];
}

}  // namespace

DecoderFeedForward::DecoderFeedForward(const DecoderSettings& settings, double output_deviation, const Initial& initial)
    : gated_(settings.gated),
      activation_(settings.activation),
      widen_(register_module(
          "widen", std::make_shared<Projection>(settings.width, widening(settings), settings.feed_forward_bias,
                                                settings.initial_deviation, settings.lora, initial))),
      projection_(register_module(
          "projection", std::make_shared<Projection>(
                            settings.inner_width, std::vector<ProjectionPart>{{narrowing(settings), settings.width}},
                            settings.feed_forward_bias, output_deviation, settings.lora, initial))) {}

at::Tensor DecoderFeedForward::forward(const at::Tensor& input) {
  const at::Tensor wide = widen_->forward(input);
  return projection_->forward(gated_ ? gated_half(activation_, wide) : bent(activation_, wide));
}

Experts::Experts(const DecoderSettings& settings, double output_deviation, const Initial& initial)
    : settings_(settings.experts.value()),
      activation_(settings.activation),
      router_(
          register_parameter("router", initial.normal({settings_.count, settings.width}, settings.initial_deviation))),
      widen_(register_parameter("widen", initial.normal({settings_.count, 2 * settings_.inner_width, settings.width},
                                                        settings.initial_deviation))),
      projection_(register_parameter(
          "projection", initial.normal({settings_.count, settings.width, settings_.inner_width}, output_deviation))) {}

Routed Experts::forward(const at::Tensor& input) {
  const at::Tensor tokens = input.reshape({-1, input.size(-1)});
  const at::Tensor logits = at::linear(tokens, router_);
  const at::Tensor shares = at::softmax(logits.to(at::kFloat), -1);  // [tokens, experts]
  auto [weights, chosen] = shares.topk(settings_.chosen, -1);        // [tokens, chosen]
  if (settings_.normalised) weights = weights / weights.sum(-1, /*keepdim=*/true);
  weights = weights.to(logits.scalar_type()).flatten();
  // The tokens of each expert side by side: one transfer says how many each has.
  const at::Tensor expert_of = chosen.flatten();
  const at::Tensor order = expert_of.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor counts = at::bincount(expert_of, {}, settings_.count);
  const at::Tensor counts_here = counts.to(at::kCPU);
  // One node for all of them: an index for each would fill the gradients of the others with zeros.
  const std::vector<at::Tensor> widen = widen_.unbind(0);
  const std::vector<at::Tensor> projection = projection_.unbind(0);
  const at::Tensor output = at::zeros_like(tokens);
  std::int64_t first = 0;
  for (std::size_t expert = 0; expert < widen.size(); ++expert) {
    const std::int64_t count = counts_here.const_data_ptr<std::int64_t>()[expert];
    if (count == 0) continue;
    const at::Tensor places = order.narrow(0, first, count);
    first += count;
    const at::Tensor rows = at::floor_divide(places, settings_.chosen);
    const at::Tensor inner = gated_half(activation_, at::linear(tokens.index_select(0, rows), widen[expert]));
    const at::Tensor weighted = at::linear(inner, projection[expert]) * weights.index_select(0, places).unsqueeze(-1);
    output.index_add_(0, rows, weighted.to(output.scalar_type()));
  }
  return {output.view(input.sizes()), at::stack({counts.to(at::kFloat), shares.sum(0)})};
}

}  // namespace penstock
