// What the holders of a stage keep equal: replicas of the whole pipeline, the two copies of a bidirectional schedule,
// or both. Each has seen some of the microbatches; their gradients go out in buckets while the schedule still runs, and
// are added up where each bucket belongs, in the order of the holders, so that the sums are the same from run to run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "penstock/exec/memory.h"
#include "penstock/exec/message_kind.h"
#include "penstock/exec/rank.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/ties.h"
#include "penstock/schedule/verify.h"

#include "pipeline/gradient_tree.h"

namespace penstock {

struct CopySettings {
  Bytes bucket{4 << 20};  // most gradients in one message; one that is larger goes alone
  bool tree = false;      // whether the holders' gradients are added along a tree, and not in a row
  bool shard = false;     // the owner of a bucket alone gets the sum, updates the weights and sends them to the others
};

class Copies {
 public:
  // \param stages those of one rank. All arguments must outlive it.
  Copies(const Placement& placement, const std::vector<TieGroup>& ties, const std::vector<Stage>& stages,
         const CopySettings& settings, Transport& transport, MemoryMeter& memory);

  // Whether another holder of its stage updates this parameter, and keeps the optimizer's state of it.
  [[nodiscard]] bool updated_elsewhere(const at::Tensor& parameter) const {
    return updated_elsewhere_.contains(parameter.unsafeGetTensorImpl());
  }

  // For the executor, which then reduces as it goes. Empty where no stage has another holder.
  [[nodiscard]] GradientReduction reduction();
  // Begins a step.
  void begin();
  // After the schedule: waits until what belongs here is added up, and until what does not and is not tied has come
  // back.
  void add_up();
  // When ties have been added: the sums of tied parameters go to the other holders.
  void hand_back_tied();
  // After an update: who updated weights for others sends them. Nothing where nothing is sharded.
  void share_weights();

  // To other ranks, by a local stage, since `begin_accounting`.
  [[nodiscard]] Bytes sent(std::size_t local_stage) const { return sent_[local_stage]; }
  void begin_accounting() { sent_.assign(sent_.size(), {}); }

 private:
  // When the other holders get the sum.
  enum class Return : std::uint8_t { AtOnce, BehindTies, Never };
  // Either parameters, whose gradients are meant, or batch norms, whose sums are.
  struct Bucket {
    StageId stage;
    std::size_t local_stage = 0;
    std::int32_t number = 0;      // within the stage
    std::vector<RankId> holders;  // in the order of addition
    RankId owner;
    at::Device device = at::kCPU;
    Return back = Return::AtOnce;
    std::vector<at::Tensor> parameters;
    std::vector<DeferredBatchNorm*> norms;
    // How far the step is.
    bool started = false;
    bool done = false;  // but for a return behind the ties
    std::size_t added = 0;
    Tensors own;
    OrderedSum sum{OrderedSum::Order::Row};
  };

  void divide(const Stage& stage, std::size_t local_stage, const std::vector<RankId>& holders,
              const std::vector<TieGroup>& ties, const CopySettings& settings);
  [[nodiscard]] bool is_own(const Bucket& bucket) const { return bucket.owner == transport_.rank(); }
  void start(Bucket& bucket);
  void advance(Bucket& bucket, bool wait);
  [[nodiscard]] bool add_arrived(Bucket& bucket, bool wait);
  void send_to_holders(const Bucket& bucket, MessageKind kind, const Tensors& tensors);
  void send(const Bucket& bucket, RankId to, MessageKind kind, Tensors message);
  [[nodiscard]] Tensors receive(const Bucket& bucket, RankId from, MessageKind kind);

  Transport& transport_;
  MemoryMeter& memory_;
  std::vector<Bucket> buckets_;
  std::unordered_set<const void*> updated_elsewhere_;
  std::vector<Bytes> sent_;
};

}  // namespace penstock
