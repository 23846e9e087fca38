#include "penstock/run/export.h"

#include <fmt/format.h>
#include <system_error>

#include "penstock/base/error.h"
#include "penstock/base/scratch_folder.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/models/write_model.h"
#include "penstock/run/train.h"

#include "run/loaded_run.h"
#include "run/model.h"
#include "run/published.h"

namespace penstock {
namespace {

void check_output(const std::filesystem::path& output) {
  std::error_code ignored;
  if (output.empty()) throw bad_input("no `output`", "a folder for the model", "name one in `output`");
  if (std::filesystem::exists(output, ignored) &&
      !(std::filesystem::is_directory(output, ignored) && std::filesystem::is_empty(output, ignored)))
    throw bad_input(fmt::format("`output` {} is there already", output.string()), "a new or empty folder",
                    "choose another `output`");
}

}  // namespace

ExportResult export_run(const std::filesystem::path& run, const ExportSettings& settings) {
  check_output(settings.output);
  const TrainSettings run_settings = settings_of_run(run);
  if (run_settings.model.kind != ModelKind::Published)
    throw bad_input(fmt::format("{} holds a run of {}", run.string(), to_text(run_settings.model.kind)),
                    "a run of a published model", "train one with the folder of a model as `model`");
  const CheckpointReader reader(trained_checkpoint(run));
  const ModelConfig model = model_of(run_settings, kept_model(run));
  if (parse_notes(reader.metadata(), run).shape != shape_text(model))
    throw bad_input(fmt::format("the checkpoint of {} is of another model than its {} says", run.string(), config_file),
                    "the config.json that the run began with", "put it back");
  if (settings.merge && !model.decoder.lora)
    throw bad_input("`merge` for a run without adapters", "a run with `lora`", "drop `merge`");
  ScratchFolder folder = ScratchFolder::beside(settings.output);
  const WrittenModel written =
      model.decoder.lora && !settings.merge
          ? write_adapters(folder.path(), model, run_settings.model.kind.folder(), reader, settings.type)
          : write_model(folder.path(), model, kept_model(run), reader, settings.type, settings.max_shard_size);
  folder.publish_as(settings.output);
  return {reader.step(), written.tensors, written.files, written.bytes};
}

}  // namespace penstock
