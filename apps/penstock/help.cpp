#include "help.h"

#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>

namespace penstock::app {
namespace {

struct ExampleOf {
  std::string_view command;
  Example example;
};

constexpr std::array all_examples{
    ExampleOf{"train",
              {"Learn from a text, on one device",
               "penstock train --data book.txt --layers 2 --width 64 --steps 20 --out runs/book"}},
    ExampleOf{
        "train",
        {"The same network in two stages, with eight microbatches a step",
         "penstock train --data book.txt --layers 2 --width 64 --steps 20 --stages 2 --microbatches 8 --out runs/cut"}},
    ExampleOf{"train", {"Go on for more steps", "penstock train --resume --out runs/cut --steps 30"}},
    ExampleOf{"train",
              {"Fine-tune a published model",
               "penstock train --model llama/ --data book.txt --batch 8 --steps 5 --out runs/tuned"}},
    ExampleOf{"eval", {"The loss on another text", "penstock eval runs/book --data other.txt"}},
    ExampleOf{"eval",
              {"Of a few samples, for a program", "penstock eval runs/book --data other.txt --samples 16 --json"}},
    ExampleOf{"sample", {"Continue a text", "penstock sample runs/book --prompt 'The pipeline ' --bytes 80"}},
    ExampleOf{"sample",
              {"Always the likeliest byte", "penstock sample runs/book --prompt 'The ' --temperature 0 --bytes 40"}},
    ExampleOf{"export", {"Write a fine-tuned model for transformers", "penstock export runs/tuned -o my-model"}},
    ExampleOf{"export",
              {"In half the space, in files of at most 2 GB",
               "penstock export runs/tuned -o my-model-bf16 --type bf16 --max-shard-size 2GB"}},
    ExampleOf{"report", {"A run as a page", "penstock report runs/book"}},
    ExampleOf{"report", {"Two runs beside each other", "penstock report runs/book runs/cut -o both.html"}},
    ExampleOf{"bubbles",
              {"Three devices, and how microbatches fill them", "penstock bubbles --stages 3 --microbatches 1,4"}},
    ExampleOf{"bubbles",
              {"One stage that takes twice as long",
               "penstock bubbles --stages 3 --relative-times 1,2,1 --schedules 1f1b --microbatches 8"}},
    ExampleOf{"doctor", {"What is here, and how fast its links are", "penstock doctor"}},
    ExampleOf{"doctor", {"Is this port free?", "penstock doctor --no-links --master-port 29500"}},
    ExampleOf{
        "plan",
        {"Measure a network and choose its pipeline",
         "penstock plan --data book.txt --layers 2 --width 64 --ranks 2 --batch 16 --microbatches 4,8 -o plan.toml"}},
    ExampleOf{"plan",
              {"From costs that were measured before: more devices than are here",
               "penstock plan --cost costs.json --ranks 4 --batch 16 --sweep sweep.svg"}},
    ExampleOf{"schedule", {"All schedules by name", "penstock schedule list"}},
    ExampleOf{"schedule", {"Draw one in the terminal", "penstock schedule show 1f1b --ranks 3 --microbatches 6"}},
    ExampleOf{"schedule list", {"All schedules by name", "penstock schedule list"}},
    ExampleOf{"schedule list", {"The same for a program", "penstock schedule list --json"}},
    ExampleOf{"schedule show", {"Draw one in the terminal", "penstock schedule show 1f1b --ranks 3 --microbatches 6"}},
    ExampleOf{"schedule show",
              {"Draw one as a picture", "penstock schedule show zb-v --ranks 4 --microbatches 8 -o zb-v.svg"}},
    ExampleOf{"schedule show",
              {"Write one as a file", "penstock schedule show 1f1b --ranks 4 --microbatches 8 -o own.csv"}},
    ExampleOf{"schedule verify", {"Prove a schedule of one's own correct", "penstock schedule verify own.csv"}},
    ExampleOf{"schedule verify",
              {"With room for four microbatches on each rank", "penstock schedule verify own.csv --memory-cap 4"}},
    ExampleOf{"schedule compare",
              {"Which is fastest where all stages are alike?", "penstock schedule compare --ranks 4 --microbatches 8"}},
    ExampleOf{"schedule compare",
              {"Of those that hold at most four microbatches",
               "penstock schedule compare --ranks 4 --microbatches 8 --memory-cap 4"}},
    ExampleOf{"schedule synth",
              {"A better one after a second of search",
               "penstock schedule synth --ranks 4 --microbatches 8 --budget 1 -o found.csv"}},
    ExampleOf{"schedule synth",
              {"With room for three microbatches on each rank",
               "penstock schedule synth --ranks 4 --microbatches 8 --memory-cap 3 --budget 1"}},
    ExampleOf{"simulate",
              {"How long a step takes, and what it holds", "penstock simulate 1f1b --ranks 4 --microbatches 8"}},
    ExampleOf{"simulate", {"Three steps in a row, of a schedule in a file", "penstock simulate own.csv --steps 3"}},
    ExampleOf{"tokenize",
              {"A text into tokens of a model", "penstock tokenize --tokenizer llama/ --data book.txt -o corpus"}},
    ExampleOf{"tokenize",
              {"Documents of JSON lines, each in its member `body`",
               "penstock tokenize --tokenizer llama/ --data lines.jsonl --field body -o documents"}},
    ExampleOf{"help", {"What a command does", "penstock help train"}},
    ExampleOf{"help", {"What a command within another does", "penstock help schedule show"}},
    ExampleOf{"help", {"A page of the documentation", "penstock help glossary"}},
};

// The library would show which value each name of an option stands for: "--post-validation{true}".
class TypedNames final : public CLI::Formatter {
 public:
  [[nodiscard]] std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    return is_positional ? option->get_name(true, false) : fmt::format("{}", fmt::join(typed_names(*option), ", "));
  }

  // "--no-post-validation=auto" would be no default of the second name.
  [[nodiscard]] std::string make_option_opts(const CLI::Option* option) const override {
    const std::string usual = option->get_default_str();
    if (option->get_items_expected_max() == 0 && !usual.empty()) return fmt::format(" ({})", usual);
    std::string text = CLI::Formatter::make_option_opts(option);
    if (const auto at = text.find("=" + usual); !usual.empty() && at != std::string::npos)
      text.replace(at + 1, usual.size(), usual_value(*option));
    return text;
  }
};

void show_examples_of(CLI::App& command, const std::string& path) {
  std::string text;
  for (const Example& example : examples_of(path))
    text += fmt::format("  {}\n      {}\n", introduction(example), example.line);
  if (!text.empty()) command.footer("Examples:\n" + text.substr(0, text.size() - 1));
  for (CLI::App* inner : command.get_subcommands([](const CLI::App*) { return true; }))
    show_examples_of(*inner, path.empty() ? inner->get_name() : path + " " + inner->get_name());
}

}  // namespace

std::vector<std::string> typed_names(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(fmt::format("-{}", name));
  for (const std::string& name : option.get_lnames()) names.push_back(fmt::format("--{}", name));
  return names;
}

std::string usual_value(const CLI::Option& option) {
  std::string usual = option.get_default_str();
  // The library writes a list as [1,2,4], which it does not read.
  if (option.get_items_expected_max() > 1 && usual.starts_with('[') && usual.ends_with(']'))
    usual = usual.substr(1, usual.size() - 2);
  return usual;
}

std::string introduction(const Example& example) {
  return fmt::format("{}{}", example.meaning, example.meaning.ends_with('?') ? "" : ":");
}

std::vector<Example> examples_of(std::string_view path) {
  std::vector<Example> examples;
  for (const ExampleOf& known : all_examples)
    if (known.command == path) examples.push_back(known.example);
  return examples;
}

void show_typed_names(CLI::App& program) { program.formatter(std::make_shared<TypedNames>()); }

void show_examples(CLI::App& program) { show_examples_of(program, ""); }

}  // namespace penstock::app
