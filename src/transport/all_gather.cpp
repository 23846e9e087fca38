#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/transport/layout.h"
#include "penstock/transport/transport.h"

namespace penstock {
namespace {

constexpr MessageKind values_kind = first_own_kind;
constexpr MessageKind texts_kind{0xf1};

at::Tensor to_tensor(const std::vector<double>& values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kDouble);
  std::copy(values.begin(), values.end(), tensor.data_ptr<double>());
  return tensor;
}

std::vector<double> to_values(const at::Tensor& tensor) {
  const std::span<const double> values = numbers_of<double>(tensor);
  return {values.begin(), values.end()};
}

Tag values_from(std::int32_t rank) { return {values_kind, rank, 0}; }
// Those that do not go over rank 0.
Tag values_between(RankId from) { return {values_kind, from.value, 1}; }

}  // namespace

std::vector<std::vector<double>> all_gather(Transport& transport, const std::vector<double>& values) {
  const std::int32_t ranks = transport.ranks();
  std::vector<at::Tensor> all;
  if (transport.rank() == RankId{0}) {
    all.push_back(to_tensor(values));
    for (std::int32_t rank = 1; rank < ranks; ++rank)
      all.push_back(transport.receive(RankId{rank}, values_from(rank)).front());
    for (std::int32_t rank = 1; rank < ranks; ++rank) transport.send(RankId{rank}, values_from(0), all);
  } else {
    transport.send(RankId{0}, values_from(transport.rank().value), {to_tensor(values)});
    all = transport.receive(RankId{0}, values_from(0));
  }
  std::vector<std::vector<double>> gathered;
  gathered.reserve(all.size());
  for (const at::Tensor& tensor : all) gathered.push_back(to_values(tensor));
  return gathered;
}

void send_to_each(Transport& transport, const std::vector<double>& values) {
  const at::Tensor message = to_tensor(values);
  for (std::int32_t rank = 0; rank < transport.ranks(); ++rank)
    if (RankId{rank} != transport.rank()) transport.send({rank}, values_between(transport.rank()), {message});
}

std::vector<std::vector<double>> receive_from_each(Transport& transport, const std::vector<double>& values) {
  std::vector<std::vector<double>> gathered;
  for (std::int32_t rank = 0; rank < transport.ranks(); ++rank) {
    const RankId from{rank};
    gathered.push_back(from == transport.rank() ? values
                                                : to_values(transport.receive(from, values_between(from)).front()));
  }
  return gathered;
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
  std::span<const std::uint8_t> letters = numbers_of<std::uint8_t>(message.at(1));
  std::vector<std::string> texts;
  for (const std::int64_t length : numbers_of<std::int64_t>(message.at(0))) {
    if (length < 0 || length > std::ssize(letters))
      throw run_failed("texts longer than their message", "their lengths, and as many bytes",
                       "start every process of the run with the same penstock");
    const auto text = letters.first(static_cast<std::size_t>(length));
    texts.emplace_back(text.begin(), text.end());
    letters = letters.subspan(text.size());
  }
  return texts;
}

}  // namespace

std::vector<std::string> all_gather_texts(Transport& transport, const std::string& text,
                                          const std::vector<RankId>& members) {
  const auto tag = [](RankId from) { return Tag{texts_kind, from.value, 0}; };
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
