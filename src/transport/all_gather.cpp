#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
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

namespace {

// The texts' lengths, and the texts one behind the other.
std::vector<at::Tensor> packed(const std::vector<std::string>& texts) {
  const at::Tensor lengths = at::empty({static_cast<std::int64_t>(texts.size())}, at::kLong);
  std::string all;
  for (std::size_t index = 0; index < texts.size(); ++index) {
    lengths.data_ptr<std::int64_t>()[index] = static_cast<std::int64_t>(texts[index].size());
    all += texts[index];
  }
  const at::Tensor bytes = at::empty({static_cast<std::int64_t>(all.size())}, at::kByte);
  if (!all.empty()) std::memcpy(bytes.data_ptr(), all.data(), all.size());
  return {lengths, bytes};
}

std::vector<std::string> unpacked(const std::vector<at::Tensor>& message) {
  const at::Tensor& lengths = message.at(0);
  const auto* letter = static_cast<const char*>(message.at(1).data_ptr());
  const char* const end = letter + message.at(1).nbytes();
  std::vector<std::string> texts;
  for (std::int64_t index = 0; index < lengths.numel(); ++index) {
    const std::int64_t length = lengths.data_ptr<std::int64_t>()[index];
    if (length < 0 || length > end - letter)
      throw run_failed("texts longer than their message", "their lengths, and as many bytes",
                       "start every process of the run with the same penstock");
    texts.emplace_back(letter, static_cast<std::size_t>(length));
    letter += length;
  }
  return texts;
}

}  // namespace

std::vector<std::string> all_gather_texts(Transport& transport, const std::string& text,
                                          const std::vector<RankId>& members) {
  const auto tag = [](RankId from) { return Tag{MessageKind::Report, from.value, 0}; };
  const RankId root = members.front();
  if (transport.rank() != root) {
    transport.send(root, tag(transport.rank()), packed({text}));
    return unpacked(transport.receive(root, tag(root)));
  }
  std::vector<std::string> texts{text};
  for (const RankId member : members)
    if (member != root) texts.push_back(unpacked(transport.receive(member, tag(member))).at(0));
  for (const RankId member : members)
    if (member != root) transport.send(member, tag(root), packed(texts));
  return texts;
}

}  // namespace penstock
