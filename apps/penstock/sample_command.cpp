#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "penstock/run/train.h"

#include "commands.h"

namespace penstock::app {
namespace {

struct SampleOptions {
  std::string run;
  SampleSettings settings;
  bool json = false;
};

// By prompt, all of what was drawn.
std::vector<std::string> texts_of(const SampleOptions& options) {
  std::vector<std::string> texts(options.settings.prompts.size());
  sample_run(options.run, options.settings, [&](std::size_t prompt, char byte) { texts[prompt] += byte; });
  return texts;
}

int answer_as_json(const SampleOptions& options) {
  const SampleSettings& settings = options.settings;
  const std::vector<std::string> texts = texts_of(options);
  nlohmann::ordered_json answer = nlohmann::ordered_json::array();
  for (std::size_t prompt = 0; prompt < texts.size(); ++prompt)
    answer.push_back({{"prompt", settings.prompts[prompt]},
                      {"text", texts[prompt]},
                      {"temperature", settings.temperature},
                      {"seed", settings.seed}});
  if (texts.size() == 1) answer = nlohmann::ordered_json(answer.front());
  // A network of bytes may draw some that are no UTF-8: each is shown as U+FFFD.
  fmt::print("{}\n", answer.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  return 0;
}

void print_text(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

int run(const SampleOptions& options) {
  if (options.json) return answer_as_json(options);
  if (options.settings.prompts.size() > 1) {
    const std::vector<std::string> texts = texts_of(options);
    for (std::size_t prompt = 0; prompt < texts.size(); ++prompt) {
      fmt::print("{}--- prompt {}\n", prompt > 0 ? "\n" : "", prompt + 1);
      print_text(options.settings.prompts[prompt] + texts[prompt] + "\n");
    }
    return 0;
  }
  bool prompt_printed = false;
  sample_run(options.run, options.settings, [&](std::size_t /*prompt*/, char byte) {
    if (!std::exchange(prompt_printed, true)) print_text(options.settings.prompts.front());
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
  CLI::App* command =
      app.add_subcommand("sample", "Continues a text with a run's last checkpoint, or with a published model");
  command->add_option("run", options->run, "Folder of the run, or of a published model")->required();
  command->add_option("--prompt", settings.prompts, "Text to continue; several, each by itself, are continued together")
      ->allow_extra_args(false)
      ->required();
  command->add_option("--bytes", settings.bytes, "Bytes to draw for each prompt")
      ->check(whole_number<std::int64_t>, "")
      ->capture_default_str();
  command->add_option("--temperature", settings.temperature, "0: the likeliest byte; 1: as the network has it")
      ->capture_default_str();
  command->add_option("--top-k", settings.top_k, "Draw only from so many of the likeliest; 0: from all")
      ->check(whole_number<std::int64_t>, "");
  command->add_option("--top-p", settings.top_p,
                      "Draw only from the likeliest that together have this probability; 1: from all");
  command->add_option("--seed", settings.seed, "Seed of the draws")
      ->check(whole_number<std::uint64_t>, "")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
