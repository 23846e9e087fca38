#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "penstock/run/train.h"

#include "commands.h"

namespace penstock::app {
namespace {

struct EvalOptions {
  std::string run;
  std::vector<std::string> data;
  std::int64_t samples = 0;
  bool json = false;
};

int run(const EvalOptions& options) {
  const EvalResult result = evaluate_run(options.run, options.data, options.samples);
  if (options.json) {
    nlohmann::ordered_json object = {{"loss_nats", result.loss}, {"loss_bits", result.loss / std::numbers::ln2}};
    if (result.perplexity) object["perplexity"] = *result.perplexity;
    if (result.bits_per_byte) object["bits_per_byte"] = *result.bits_per_byte;
    object["samples"] = result.samples;
    object["step"] = result.step;
    fmt::print("{}\n", object.dump(2));
    return 0;
  }
  fmt::print("loss {:.4f} nats ({:.4f} bits) over {} samples, with the weights after step {}\n", result.loss,
             result.loss / std::numbers::ln2, result.samples, result.step);
  if (result.perplexity) fmt::print("perplexity {:.4g}\n", *result.perplexity);
  if (result.bits_per_byte)
    fmt::print("{:.4f} bits a byte\n", *result.bits_per_byte);
  else if (result.perplexity)
    fmt::print("bits a byte are not known: these tokens have no index that says how many bytes of text they are\n");
  return 0;
}

}  // namespace

Command add_eval_command(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      app.add_subcommand("eval",
                         "Loss, perplexity and bits a byte of a run's last checkpoint, or of a published model, "
                         "on other data");
  command->add_option("run", options->run, "Folder of the run, or of a published model")->required();
  command->add_option("--data", options->data, "Files or folders, as for train")->required();
  command->add_option("--samples", options->samples, "Samples, spread evenly over the data; 0: all of it")
      ->check(whole_number<std::int64_t>, "");
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
