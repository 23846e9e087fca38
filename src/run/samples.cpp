#include <algorithm>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/run/trainer.h"
#include "penstock/settings/data_sources.h"

#include "run/file_samples.h"

namespace penstock {
namespace {

class Rows final : public Samples {
 public:
  Rows(Tensors inputs, Tensors targets) : inputs_(std::move(inputs)), targets_(std::move(targets)) {
    if (inputs_.empty()) throw bad_input("samples without an input", "at least one tensor", "name the inputs");
    for (const Tensors* side : {&inputs_, &targets_})
      for (const at::Tensor& tensor : *side) check(tensor);
  }

  [[nodiscard]] std::int64_t size() const override { return inputs_.front().size(0); }

  [[nodiscard]] Minibatch minibatch(std::span<const std::int64_t> numbers) const override {
    const at::Tensor rows = at::tensor(at::ArrayRef<std::int64_t>(numbers.data(), numbers.size()), at::kLong);
    Minibatch minibatch;
    for (const at::Tensor& input : inputs_) minibatch.inputs.push_back({input.index_select(0, rows)});
    for (const at::Tensor& target : targets_) minibatch.targets.push_back({target.index_select(0, rows)});
    return minibatch;
  }

 private:
  void check(const at::Tensor& tensor) const {
    if (!tensor.defined() || tensor.dim() == 0 || tensor.size(0) == 0)
      throw bad_input("samples of a tensor without rows", "a row for each sample", "stack the samples in dimension 0");
    if (!tensor.device().is_cpu())
      throw bad_input(fmt::format("samples on {}", tensor.device().str()), "tensors on the host",
                      "move them with .cpu(); each microbatch goes to its rank's device");
    if (tensor.size(0) != inputs_.front().size(0))
      throw bad_input(fmt::format("{} rows in one tensor and {} in another", inputs_.front().size(0), tensor.size(0)),
                      "a row for each sample in every input and target", "give as many of each");
  }

  const Tensors inputs_;
  const Tensors targets_;
};

class Made final : public Samples {
 public:
  Made(std::int64_t size, std::function<Minibatch(std::span<const std::int64_t>)> minibatch)
      : size_(size), minibatch_(std::move(minibatch)) {
    if (size_ < 1) throw bad_input(fmt::format("{} samples", size_), "at least one", "give more of them");
  }

  [[nodiscard]] std::int64_t size() const override { return size_; }
  [[nodiscard]] Minibatch minibatch(std::span<const std::int64_t> numbers) const override {
    return minibatch_(numbers);
  }

 private:
  const std::int64_t size_;
  const std::function<Minibatch(std::span<const std::int64_t>)> minibatch_;
};

}  // namespace

std::shared_ptr<const Samples> samples_of(Tensors inputs, Tensors targets) {
  return std::make_shared<Rows>(std::move(inputs), std::move(targets));
}

std::shared_ptr<const Samples> samples_of(std::int64_t size,
                                          std::function<Minibatch(std::span<const std::int64_t> numbers)> minibatch) {
  return std::make_shared<Made>(size, std::move(minibatch));
}

std::shared_ptr<const Samples> samples_of(std::shared_ptr<const Dataset> dataset) {
  const std::int64_t size = dataset->size();
  return samples_of(size, [dataset = std::move(dataset)](std::span<const std::int64_t> numbers) {
    Batch batch = dataset->batch(numbers);
    return Minibatch{{{std::move(batch.input)}}, {{std::move(batch.target)}}};
  });
}

Data open_sources(const TrainSettings::Data& data, const std::function<Data(const DataSettings&)>& open) {
  DataSettings wanted{{}, data.kind, data.context, data.held_out, data.field};
  const std::vector<DataSource> sources = data_sources(data.paths);
  if (!have_weights(sources)) {
    wanted.paths = {data.paths.begin(), data.paths.end()};
    return open(wanted);
  }
  std::vector<Data> opened;
  std::vector<std::int64_t> weights;
  for (const DataSource& source : sources) {
    wanted.paths = {source.path};
    opened.push_back(open(wanted));
    weights.push_back(source.weight);
  }
  return mixed(opened, weights);
}

Data open_files(const TrainSettings::Data& data) { return open_sources(data, open_data); }

FileSamples open_samples(const TrainSettings::Data& data) {
  Data opened = open_files(data);
  FileSamples samples;
  samples.train = samples_of(std::move(opened.train));
  if (opened.held_out) samples.held_out = samples_of(std::move(opened.held_out));
  const DataDescription& files = opened.description;
  samples.classes = files.kind == DataKind::Images ? files.classes : files.vocabulary;
  return samples;
}

}  // namespace penstock
