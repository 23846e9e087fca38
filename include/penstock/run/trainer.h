/// \file
/// A network of one's own, trained as `penstock train` trains the built-in ones: data in order, learning rate,
/// evaluation, checkpoints and resume, metrics, plans, several processes. docs/cpp.md leads through it.
///
///     penstock::train({network, penstock::samples_of({inputs}, {targets})}, settings, observer);
///
/// examples/train_from_cpp is a whole program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/exec/microbatch.h"
#include "penstock/nn/layer.h"
#include "penstock/optim/optimizer.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/run/train.h"
#include "penstock/settings/settings.h"
#include "penstock/transport/c10d.h"

namespace penstock {

/// What a network learns from: samples numbered 0 … size() − 1, each of any number of inputs and targets. Immutable: a
/// number stands for the same sample as long as the run lives, and in every process of it. `train` calls it from the
/// thread that called `train`.
class Samples {
 public:
  Samples() = default;
  Samples(const Samples&) = delete;
  Samples& operator=(const Samples&) = delete;
  Samples(Samples&&) = delete;
  Samples& operator=(Samples&&) = delete;
  virtual ~Samples() = default;

  /// How many there are, at least 1.
  [[nodiscard]] virtual std::int64_t size() const = 0;

  /// Those with these numbers, in this order, on the host: the first dimension of each tensor, if its argument names no
  /// other, has a place for each number. A number may come more than once.
  [[nodiscard]] virtual Minibatch minibatch(std::span<const std::int64_t> numbers) const = 0;
};

/// Samples that are the rows of tensors on the host: sample n is row n of every input and of every target. Shares the
/// tensors' memory. \throws Error (BadInput) for no inputs, no rows, or tensors that differ in their number of rows.
[[nodiscard]] std::shared_ptr<const Samples> samples_of(Tensors inputs, Tensors targets);

/// Samples that a function makes. \param size how many there are. \throws Error (BadInput) for a size below 1.
[[nodiscard]] std::shared_ptr<const Samples> samples_of(
    std::int64_t size, std::function<Minibatch(std::span<const std::int64_t> numbers)> minibatch);

/// Files as `penstock train` reads them, in two splits. Each sample has one input and one target.
struct FileSamples {
  std::shared_ptr<const Samples> train;     ///< never null
  std::shared_ptr<const Samples> held_out;  ///< null where nothing is held out; no byte, token or image is in both
  /// How many classes the network's last layer tells apart: 256 for bytes of text, the largest token and one for
  /// tokens, the labels of images.
  std::int64_t classes = 0;
};

/// Opens text, token files or images with labels; docs/data.md describes them. Large files stay on the disk (they are
/// memory-mapped), so they must not be changed or cut while the samples are in use. The same files and settings give
/// the same samples on every machine. Example: `open_samples({.paths = {"books/"}}).train`.
/// \throws Error (BadInput) that names the file: missing, unreadable, empty, shorter than a window, of a wrong size or
/// layout, or a setting out of its range.
[[nodiscard]] FileSamples open_samples(const TrainSettings::Data& data);

/// A dataset as libtorch has them (`torch::data::datasets::Dataset`): `get(index)` returns an example with `data` and
/// `target`, and `size()` how many there are.
template <class Type>
concept TorchDataset = requires(Type& dataset, std::size_t index) {
  { dataset.get(index).data } -> std::convertible_to<at::Tensor>;
  { dataset.get(index).target } -> std::convertible_to<at::Tensor>;
  { *dataset.size() } -> std::convertible_to<std::size_t>;
};

/// Samples of a libtorch dataset, whose examples are stacked. Example:
/// `samples_of(torch::data::datasets::MNIST(path))`.
template <TorchDataset Type>
[[nodiscard]] std::shared_ptr<const Samples> samples_of(Type dataset) {
  const auto shared = std::make_shared<Type>(std::move(dataset));
  return samples_of(static_cast<std::int64_t>(*shared->size()), [shared](std::span<const std::int64_t> numbers) {
    std::vector<at::Tensor> inputs;
    std::vector<at::Tensor> targets;
    for (const std::int64_t number : numbers) {
      auto example = shared->get(static_cast<std::size_t>(number));
      inputs.push_back(std::move(example.data));
      targets.push_back(std::move(example.target));
    }
    return Minibatch{{{at::stack(inputs)}}, {{at::stack(targets)}}};
  });
}

/// What is trained: a network of one's own, and what it learns from.
struct Training {
  Network network;
  std::shared_ptr<const Samples> train;          ///< not null
  std::shared_ptr<const Samples> held_out = {};  ///< for evaluation; null: nothing is evaluated
  /// Learning rate and weight decay of some parameters (`OptimizerSettings::rules`).
  std::vector<UpdateRule> rules = {};
  /// The learning rate of the update with this number, from 0, in place of the settings' warm-up and cosine; empty:
  /// those. A resumed run asks again for the steps that it makes.
  std::function<double(std::int64_t step)> learning_rate = {};
};

/// Trains a network of one's own, or goes on training it, as `train` (train.h) does with a built-in one, and into the
/// same kind of folder. With `settings.resume` a run that has a checkpoint goes on from it, on as many stages as the
/// settings say, and one that has none begins. The samples of a step depend on `settings.seed` and the step alone.
/// `schedule`, `cut`, `microbatches` and `recompute` may be `auto`: the layers are then measured first.
/// \param settings those of data and of the built-in networks stay at their defaults.
/// \param processes this process's part, where several share the run (`process_of_environment`); each brings the same
/// network and samples, and some of the samples are compared.
/// \throws Error (BadInput) before anything is written; (RunFailed) with the last checkpoint whole.
TrainResult train(Training training, const TrainSettings& settings, const TrainObserver& observer = {},
                  const std::optional<ProcessSettings>& processes = std::nullopt);

/// The loss of the last whole checkpoint in `out` on `samples`: all of them, or `count` (not 0) spread evenly over
/// them.
/// \param network that of the run. \throws Error (BadInput)
[[nodiscard]] EvalResult evaluate_run(const std::filesystem::path& out, const Network& network, const Samples& samples,
                                      std::int64_t count = 0);

/// A pipeline with the weights of the last whole checkpoint in `out`, for `Pipeline::forward` and `evaluate`, on the
/// stages and devices of the run. \param network that of the run. \throws Error (BadInput)
[[nodiscard]] Pipeline trained_pipeline(const std::filesystem::path& out, const Network& network);

}  // namespace penstock
