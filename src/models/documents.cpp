#include "models/documents.h"

#include <tuple>

#include <ATen/ATen.h>

#include "penstock/nn/layer.h"

namespace penstock {

bool are_apart(const DecoderSettings& settings) {
  return settings.documents.has_value() && CacheScope::current() == nullptr;
}

at::Tensor documents_of(const at::Tensor& tokens, const DocumentSettings& settings) {
  const at::Tensor ends = tokens.eq(settings.end_token).to(at::kLong);
  return ends.cumsum(1) - ends;
}

at::Tensor positions_within(const at::Tensor& documents) {
  const at::Tensor places = at::arange(documents.size(1), documents.options()).expand_as(documents);
  const at::Tensor begins = at::cat({at::zeros_like(documents.narrow(1, 0, 1)), documents.diff(1, 1)}, 1).gt(0);
  return places - std::get<0>(at::where(begins, places, at::zeros_like(places)).cummax(1));
}

}  // namespace penstock
