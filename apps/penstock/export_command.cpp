#include <fmt/format.h>
#include <memory>
#include <string>

#include "penstock/base/error.h"
#include "penstock/run/export.h"

#include "commands.h"
#include "setting_options.h"

namespace penstock::app {
namespace {

struct ExportOptions {
  std::string run;
  std::string output;
  ExportSettings settings;
};

int run(const ExportOptions& options) {
  ExportSettings settings = options.settings;
  settings.output = options.output;
  const ExportResult result = export_run(options.run, settings);
  fmt::print("{} in {}, {} in {}, with the weights after step {}\n", counted(result.tensors, "tensor"),
             counted(result.files, "file"), to_string(result.bytes), options.output, result.step);
  return 0;
}

}  // namespace

Command add_export_command(CLI::App& app) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command =
      app.add_subcommand("export", "Writes a run of a published model as a folder that transformers loads");
  command->add_option("run", options->run, "Folder of the run")->required();
  command->add_option("-o,--output", options->output, "Folder for the model; new, or empty")->required();
  add_text_option(*command, "max-shard-size", options->settings.max_shard_size,
                  "Most bytes of weights in a file, such as 5GB");
  add_text_option(*command, "type", options->settings.type,
                  "Type of the weights: fp32, which keeps every bit, bf16 or fp16");
  command->add_flag("--merge", options->settings.merge,
                    "For a run with adapters: write the model with them in its weights, in place of the adapters");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
