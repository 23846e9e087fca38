#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
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
  std::optional<std::string> field;
  bool json = false;
};

// Of one source, or of all together.
nlohmann::ordered_json json_of(const auto& figures) {
  nlohmann::ordered_json object = {{"loss_nats", figures.loss}, {"loss_bits", figures.loss / std::numbers::ln2}};
  if (figures.perplexity) object["perplexity"] = *figures.perplexity;
  if (figures.bits_per_byte) object["bits_per_byte"] = *figures.bits_per_byte;
  object["samples"] = figures.samples;
  return object;
}

std::string json_text(const EvalResult& result) {
  nlohmann::ordered_json object = json_of(result);
  object["step"] = result.step;
  for (const EvalSource& source : result.sources) {
    nlohmann::ordered_json own = {{"path", source.path}, {"share", source.share}};
    own.update(json_of(source));
    object["sources"].push_back(own);
  }
  return object.dump(2);
}

// A line for each source, below that of the names.
std::string table_of(const std::vector<EvalSource>& sources) {
  std::size_t widest = 6;
  for (const EvalSource& source : sources) widest = std::max(widest, source.path.size());
  const auto number = [](const std::optional<double>& value, const char* form) {
    return value ? fmt::format(fmt::runtime(form), *value) : std::string("-");
  };
  std::string text = fmt::format("\n{:<{}}  {:>8}  {:>8}  {:>11}  {:>10}  {:>11}\n", "source", widest, "share",
                                 "samples", "loss (nats)", "perplexity", "bits a byte");
  for (const EvalSource& source : sources)
    text += fmt::format("{:<{}}  {:>6.1f} %  {:>8}  {:>11.4f}  {:>10}  {:>11}\n", source.path, widest,
                        100 * source.share, source.samples, source.loss, number(source.perplexity, "{:.4g}"),
                        number(source.bits_per_byte, "{:.4f}"));
  return text;
}

int run(const EvalOptions& options) {
  const EvalResult result = evaluate_run(options.run, options.data, options.samples, options.field);
  if (options.json) {
    fmt::print("{}\n", json_text(result));
    return 0;
  }
  fmt::print("loss {:.4f} nats ({:.4f} bits) over {} samples{}, with the weights after step {}\n", result.loss,
             result.loss / std::numbers::ln2, result.samples,
             result.sources.empty() ? "" : ", by the weights of the sources", result.step);
  if (result.perplexity) fmt::print("perplexity {:.4g}\n", *result.perplexity);
  if (result.bits_per_byte)
    fmt::print("{:.4f} bits a byte\n", *result.bits_per_byte);
  else if (result.perplexity)
    fmt::print("bits a byte are not known: these tokens have no index that says how many bytes of text they are\n");
  if (!result.sources.empty()) fmt::print("{}", table_of(result.sources));
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
  command
      ->add_option("--data", options->data,
                   "Files or folders, as for train; those with weights (a.bin:0.7) also each by itself")
      ->required();
  command
      ->add_option("--samples", options->samples,
                   "Samples, spread evenly over the data, or over each source with a weight; 0: all of it")
      ->check(whole_number<std::int64_t>, "");
  command->add_option(
      "--field", options->field,
      "Of JSON lines for a published model: the member that is the text; by default the run's, or text");
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
