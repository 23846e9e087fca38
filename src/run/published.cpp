#include "run/published.h"

#include <fmt/format.h>
#include <memory>
#include <span>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/data/tokenized.h"
#include "penstock/models/decoder.h"
#include "penstock/models/weights.h"
#include "penstock/run/train.h"
#include "penstock/run/trainer.h"
#include "penstock/settings/data_sources.h"

#include "run/file_samples.h"
#include "run/run_folder.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

void check_same(const char* name, std::int64_t given, std::int64_t usual, std::int64_t published) {
  if (given == usual || given == published) return;
  throw bad_input(fmt::format("{} is {}, that of the model's config.json is {}", field(name), given, published),
                  "the shape of the published model", fmt::format("drop {}", field(name)));
}

// A run goes on with the model that it began with. Of another one, whatever is compared first would be named in its
// place: the layers, or the width.
void check_model_of_run(const TrainSettings& settings) {
  const fs::path out = settings.output.folder;
  if (!settings.output.resume || out.empty() || !is_there(RunFolder::config(out))) return;
  const ModelChoice began = settings_of_run(out).model.kind;
  const bool was_published = began.kind() == ModelKind::Published;
  const bool is_published = settings.model.kind.kind() == ModelKind::Published;
  if (!was_published && !is_published) return;  // the checkpoint says it
  std::string began_with = to_text(began);
  std::string asked = to_text(settings.model.kind);
  if (was_published && is_published) {
    if (!is_there(kept_model(out) / config_file)) return;
    const std::string shape_of_run = shape_text(read_config(kept_model(out)));
    const std::string shape_asked = shape_text(read_config(folder_of_model(settings)));
    if (shape_of_run == shape_asked) return;
    began_with += fmt::format(" ({})", shape_of_run);
    asked += fmt::format(" ({})", shape_asked);
  }
  throw bad_input(fmt::format("`model` is {}, the run in {} trains another: {}", asked, out.string(), began_with),
                  "the model that the run began with", "drop `model` or choose another `out`");
}

void check_context(const TrainSettings& settings, const DecoderSettings& decoder) {
  if (settings.data.context <= decoder.most_positions) return;
  throw bad_input(
      fmt::format("`context` is {}", settings.data.context),
      fmt::format("at most {}, the positions that the model {}", decoder.most_positions,
                  decoder.rotary ? "was made for (max_position_embeddings of its config.json)" : "has learned"),
      "lower `context`");
}

}  // namespace

fs::path kept_model(const fs::path& out) { return out / "model"; }

fs::path folder_of_model(const TrainSettings& settings) {
  const fs::path named = settings.model.kind.folder();
  const fs::path kept = kept_model(settings.output.folder);
  const bool may_be_kept = settings.output.resume && !settings.output.folder.empty();
  return !is_there(named / config_file) && may_be_kept && is_there(kept / config_file) ? kept : named;
}

ModelConfig model_of(const TrainSettings& settings, const fs::path& folder) {
  ModelConfig model = read_config(folder);
  model.decoder.dropout = settings.model.dropout;
  if (settings.data.documents != Documents::Joined) {
    const std::vector<std::string> paths = paths_of(data_sources(settings.data.paths));
    const auto end = end_of_documents({paths.begin(), paths.end()}, folder);
    if (!end)
      throw bad_input(
          fmt::format("`documents` = {}, and nothing says with which token they end", word_of(settings.data.documents)),
          "a tokenizer with such a token in the folder of the model, or tokens with an index",
          "make the tokens with penstock tokenize");
    model.decoder.documents = {*end, settings.data.documents == Documents::Apart};
  }
  if (settings.model.lora > 0) {
    LoraSettings lora{settings.model.lora, settings.model.lora_alpha, settings.model.lora_targets};
    // What is the default for others, as PEFT has it for this one.
    if (model.family == ModelFamily::Gpt2 && lora.targets == LoraSettings{}.targets) lora.targets = {"c_attn"};
    model.decoder.lora = std::move(lora);
  }
  check_decoder(model.decoder);
  if (!model.decoder.rotary) check_context(settings, model.decoder);
  return model;
}

TrainSettings with_published_shape(TrainSettings settings) {
  check_model_of_run(settings);
  if (settings.model.kind != ModelKind::Published) return settings;
  const DecoderSettings shape = read_config(folder_of_model(settings)).decoder;
  const TrainSettings::Model usual;
  TrainSettings::Model& model = settings.model;
  check_same("layers", model.layers, usual.layers, shape.layers);
  check_same("width", model.width, usual.width, shape.width);
  check_same("heads", model.heads, usual.heads, shape.heads);
  check_same("tied-head", model.tied_head ? 1 : 0, usual.tied_head ? 1 : 0, shape.tied_head ? 1 : 0);
  model.layers = shape.layers;
  model.width = shape.width;
  model.heads = shape.heads;
  model.tied_head = shape.tied_head;
  return settings;
}

std::shared_ptr<const Samples> samples_of_documents(std::shared_ptr<const Dataset> dataset,
                                                    const DecoderSettings& decoder) {
  if (!decoder.documents) return samples_of(std::move(dataset));
  const std::int64_t size = dataset->size();
  return samples_of(
      size, [dataset = std::move(dataset), end = decoder.documents->end_token](std::span<const std::int64_t> numbers) {
        constexpr std::int64_t ignored = -100;
        Batch batch = dataset->batch(numbers);
        batch.target.masked_fill_(batch.input.eq(end), ignored);
        return Minibatch{{{std::move(batch.input)}}, {{std::move(batch.target)}}};
      });
}

namespace {

// To measure what layers cost, which does not depend on which tokens they see.
Job with_drawn_tokens(Job job, const TrainSettings& settings, const DecoderSettings& decoder) {
  job.data.kind = DataKind::Tokens32;
  job.data.vocabulary = decoder.vocabulary;
  job.train = samples_of(drawn_tokens(decoder.vocabulary, settings.data.context));
  return job;
}

}  // namespace

Job published_job(const TrainSettings& settings) {
  const fs::path folder = folder_of_model(settings);
  const ModelConfig model = model_of(settings, folder);
  const fs::path weights_in = settings.model.kind.folder();
  Job job;
  FillLayer fill;
  const bool resumes =
      settings.output.resume && !whole_checkpoints(fs::path(settings.output.folder) / "checkpoints").empty();
  // Rotary positions can be computed for any context, which a run that has begun with it may go on to do.
  if (!resumes) check_context(settings, model.decoder);
  if (!settings.model.from_scratch && resumes && !has_weights(weights_in)) {
    job.weights_have_gone = true;
  } else if (!settings.model.from_scratch) {
    fill = [weights = std::make_shared<const ModelWeights>(weights_in, model)](
               std::int64_t layer, torch::nn::Module& module) { weights->fill(layer, module); };
  }
  job.network = make_decoder(model.decoder, fill);
  job.shape = shape_text(model);
  if (settings.data.paths.empty()) return with_drawn_tokens(std::move(job), settings, model.decoder);
  Data data = open_sources(settings.data, [&](const DataSettings& wanted) {
    return open_tokenized(wanted, folder, model.decoder.vocabulary);
  });
  job.data = data.description;
  job.train = samples_of_documents(data.train, model.decoder);
  if (data.held_out) job.held_out = samples_of_documents(data.held_out, model.decoder);
  job.files = std::move(data);
  return job;
}

}  // namespace penstock
