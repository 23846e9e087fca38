// Parameters that are one and live in several layers.
#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/counted_messages.h"
#include "penstock/exec/message_kind.h"

#include "pipeline/worker.h"

namespace penstock {

const std::vector<RankId>& Worker::holders_of_layer(std::int64_t layer) const {
  const Cut& cut = plan_.settings.cut;
  const auto stage = std::upper_bound(cut.begin(), cut.end(), layer) - cut.begin() - 1;
  return plan_.training->placement.holders.at(static_cast<std::size_t>(stage));
}

at::Tensor* Worker::find(const ParameterAddress& address) {
  for (std::vector<Parameter>* parameters : {&parameters_, &frozen_}) {
    for (Parameter& parameter : *parameters) {
      const auto& names = parameter.names;
      if (parameter.layer == address.layer && std::find(names.begin(), names.end(), address.name) != names.end())
        return &parameter.tensor;
    }
  }
  return nullptr;
}

namespace {

bool holds(const std::vector<RankId>& holders, RankId rank) {
  return std::find(holders.begin(), holders.end(), rank) != holders.end();
}

Tag tag_of_sum(std::size_t group) { return {MessageKind::TiedSum, static_cast<std::int32_t>(group), 0}; }
Tag tag_of_gradient(std::size_t group, std::size_t member) {
  return {MessageKind::TiedGradient, static_cast<std::int32_t>(group), static_cast<std::int32_t>(member)};
}

std::string shape_of(const at::Tensor& tensor) {
  return fmt::format("[{}] {}", fmt::join(tensor.sizes(), ", "), at::toString(tensor.scalar_type()));
}

at::Tensor copy_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; }

}  // namespace

void Worker::send_tied(RankId to, const Tag& tag, at::Tensor tensor) {
  Tensors message;
  message.push_back(std::move(tensor));
  send_counted(transport_, to, tag, std::move(message));
}

at::Tensor Worker::receive_tied(RankId from, const Tag& tag) {
  const at::Tensor tensor = std::move(receive_counted(transport_, memory_, from, tag).front());
  return tensor.defined() ? tensor.to(device_of(plan_, transport_.rank())) : tensor;
}

// What a group's members are here, of those that this rank holds: by member, null for others.
std::vector<at::Tensor*> Worker::held_members(const TieGroup& group) {
  std::vector<at::Tensor*> held;
  for (const ParameterAddress& member : group.members) {
    const bool is_here = holds(holders_of_layer(member.layer), transport_.rank());
    held.push_back(is_here ? find(member) : nullptr);
    if (is_here && held.back() == nullptr)
      throw bad_input(fmt::format("{} in a tie", to_text(member)), "a parameter of that layer",
                      "check the names in Network::ties");
    const auto same = std::find(held.begin(), held.end() - 1, held.back());
    if (is_here && same != held.end() - 1)
      throw bad_input(
          fmt::format("a tie of {} with {}, which are one already",
                      to_text(group.members[static_cast<std::size_t>(same - held.begin())]), to_text(member)),
          "parameters of their own", "drop the tie from Network::ties");
  }
  return held;
}

// All members start as the owner does, which the first holder of its stage sends to those that do not hold it.
void Worker::share_initial_ties() {
  const at::NoGradGuard no_graph;
  for (std::size_t index = 0; index < plan_.ties.size(); ++index) {
    const TieGroup& group = plan_.ties[index];
    const std::vector<at::Tensor*> held = held_members(group);
    const std::vector<RankId>& owners = holders_of_layer(group.owner.layer);
    if (owners.front() == transport_.rank()) {
      std::set<RankId> others;
      for (const ParameterAddress& member : group.members)
        for (const RankId rank : holders_of_layer(member.layer))
          if (!holds(owners, rank)) others.insert(rank);
      const at::Tensor* owner = find(group.owner);
      for (const RankId rank : others)
        send_tied(rank, tag_of_sum(index), owner->detach().clone().requires_grad_(owner->requires_grad()));
    }
    if (std::all_of(held.begin(), held.end(), [](const at::Tensor* member) { return member == nullptr; })) continue;
    const at::Tensor* own = find(group.owner);
    const at::Tensor value = own != nullptr ? *own : receive_tied(owners.front(), tag_of_sum(index));
    for (std::size_t place = 0; place < held.size(); ++place) {
      at::Tensor* member = held[place];
      if (member == nullptr || member == own) continue;
      if (member->sizes() != value.sizes() || member->scalar_type() != value.scalar_type())
        throw bad_input(fmt::format("a tie of {}, {}, with {}, {}", to_text(group.owner), shape_of(value),
                                    to_text(group.members[place]), shape_of(*member)),
                        "parameters of one shape and dtype", "correct Network::ties");
      if (member->requires_grad() != value.requires_grad())
        throw bad_input(fmt::format("a tie of {} with {}, of which one takes a gradient", to_text(group.owner),
                                    to_text(group.members[place])),
                        "parameters that both learn, or both stay", "freeze both (with_frozen_layers does), or none");
      member->copy_(value);
    }
  }
}

// All members of a group get the sum of those gradients that there are, added in the order of the members on every cut.
// Members keep buffers of their own also where they share a rank, so that the order of additions never changes. Of
// several holders the first have the sums, and hand them back to the others when the ties are done.
void Worker::add_tied_gradients() {
  const at::NoGradGuard no_graph;
  const RankId here = transport_.rank();
  const auto first_holder = [&](const ParameterAddress& member) { return holders_of_layer(member.layer).front(); };
  for (std::size_t index = 0; index < plan_.ties.size(); ++index) {
    const TieGroup& group = plan_.ties[index];
    const RankId home = first_holder(group.owner);
    if (home == here) continue;
    for (std::size_t place = 0; place < group.members.size(); ++place)
      if (first_holder(group.members[place]) == here)
        send_tied(home, tag_of_gradient(index, place), std::exchange(find(group.members[place])->mutable_grad(), {}));
  }
  for (std::size_t index = 0; index < plan_.ties.size(); ++index) {
    const TieGroup& group = plan_.ties[index];
    if (first_holder(group.owner) != here) continue;
    at::Tensor sum;
    std::set<RankId> others;
    for (std::size_t place = 0; place < group.members.size(); ++place) {
      const RankId holder = first_holder(group.members[place]);
      if (holder != here) others.insert(holder);
      const at::Tensor next = holder == here ? std::exchange(find(group.members[place])->mutable_grad(), {})
                                             : receive_tied(holder, tag_of_gradient(index, place));
      if (next.defined()) sum = sum.defined() ? sum + next : next;
    }
    for (const RankId other : others) send_tied(other, tag_of_sum(index), copy_of(sum));
    apply_tied_sum(group, sum);
  }
  for (std::size_t index = 0; index < plan_.ties.size(); ++index) {
    const TieGroup& group = plan_.ties[index];
    const RankId home = first_holder(group.owner);
    const bool takes_part = std::any_of(group.members.begin(), group.members.end(),
                                        [&](const ParameterAddress& member) { return first_holder(member) == here; });
    if (home != here && takes_part) apply_tied_sum(group, receive_tied(home, tag_of_sum(index)));
  }
}

// To the members whose first holder this rank is, each a buffer of its own.
void Worker::apply_tied_sum(const TieGroup& group, const at::Tensor& sum) {
  bool taken = false;
  for (const ParameterAddress& member : group.members) {
    if (holders_of_layer(member.layer).front() != transport_.rank()) continue;
    find(member)->mutable_grad() = std::exchange(taken, true) ? copy_of(sum) : sum;
  }
}

}  // namespace penstock
