#include <ATen/ATen.h>

#include "penstock/transport/transport.h"

namespace penstock {
namespace {

at::Tensor to_tensor(const std::vector<double>& values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kDouble);
  std::copy(values.begin(), values.end(), tensor.data_ptr<double>());
  return tensor;
}

std::vector<double> to_values(const at::Tensor& tensor) {
  const auto* data = tensor.const_data_ptr<double>();
  return {data, data + tensor.numel()};
}

Tag values_from(std::int32_t rank) { return {MessageKind::Values, rank, 0}; }

}  // namespace

void offer_to_all(Transport& transport, const std::vector<double>& values) {
  // Rank 0's own go out with those that have come in.
  if (transport.rank() != RankId{0})
    transport.send(RankId{0}, values_from(transport.rank().value), {to_tensor(values)});
}

std::vector<std::vector<double>> gather_from_all(Transport& transport, const std::vector<double>& values) {
  const std::int32_t ranks = transport.ranks();
  std::vector<at::Tensor> all;
  if (transport.rank() == RankId{0}) {
    all.push_back(to_tensor(values));
    for (std::int32_t rank = 1; rank < ranks; ++rank)
      all.push_back(transport.receive(RankId{rank}, values_from(rank)).front());
    for (std::int32_t rank = 1; rank < ranks; ++rank) transport.send(RankId{rank}, values_from(0), all);
  } else {
    all = transport.receive(RankId{0}, values_from(0));
  }
  std::vector<std::vector<double>> gathered;
  gathered.reserve(all.size());
  for (const at::Tensor& tensor : all) gathered.push_back(to_values(tensor));
  return gathered;
}

std::vector<std::vector<double>> all_gather(Transport& transport, const std::vector<double>& values) {
  offer_to_all(transport, values);
  return gather_from_all(transport, values);
}

}  // namespace penstock
