#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "penstock/launch/stop_signal.h"
#include "penstock/run/train.h"

#include "commands.h"

namespace penstock::app {
namespace {

struct SampleOptions {
  std::string run;
  SampleSettings settings;
  bool json = false;
};

int answer_as_json(const SampleOptions& options) {
  std::string text;
  const SampleSettings& settings = options.settings;
  sample_run(options.run, settings, [&](char byte) { text += byte; });
  const nlohmann::ordered_json object = {
      {"prompt", settings.prompt}, {"text", text}, {"temperature", settings.temperature}, {"seed", settings.seed}};
  // A network of bytes may draw some that are no UTF-8: each is shown as U+FFFD.
  fmt::print("{}\n", object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  return 0;
}

int run(const SampleOptions& options) {
  if (options.json) return answer_as_json(options);
  bool prompt_printed = false;
  sample_run(options.run, options.settings, [&](char byte) {
    if (!std::exchange(prompt_printed, true)) std::fputs(options.settings.prompt.c_str(), stdout);
    std::fputc(byte, stdout);
    std::fflush(stdout);
  });
  std::fputc('\n', stdout);
  return 0;
}

}  // namespace

Command add_sample_command(CLI::App& app) {
  auto options = std::make_shared<SampleOptions>();
  SampleSettings& settings = options->settings;
  CLI::App* command = app.add_subcommand("sample", "Continues a text with a run's last checkpoint");
  command->add_option("run", options->run, "Folder of the run")->required();
  command->add_option("--prompt", settings.prompt, "Text to continue")->required();
  command->add_option("--bytes", settings.bytes, "Bytes to draw")
      ->check(whole_number<std::int64_t>, "")
      ->capture_default_str();
  command->add_option("--temperature", settings.temperature, "0: the likeliest byte; 1: as the network has it")
      ->capture_default_str();
  command->add_option("--seed", settings.seed, "Seed of the draws")
      ->check(whole_number<std::uint64_t>, "")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
