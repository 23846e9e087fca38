#include "mistakes.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "penstock/base/error.h"
#include "penstock/base/nearest.h"

namespace penstock::app {
namespace {

// The command as far as the command line was understood: "penstock schedule show".
struct Innermost {
  std::string name;
  const CLI::App* command = nullptr;
};

Innermost innermost_command(const CLI::App& app) {
  Innermost innermost{app.get_name(), &app};
  for (auto used = app.get_subcommands(); !used.empty(); used = used.front()->get_subcommands()) {
    innermost.command = used.front();
    innermost.name += " " + used.front()->get_name();
  }
  return innermost;
}

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::string unknown_option(const Innermost& innermost, const std::string& word) {
  const std::string option = word.substr(0, word.find('='));
  return fmt::format("unknown option '{0}' of `{1}`; expected one that `{1} --help` lists{2}", shortened(option),
                     innermost.name, did_you_mean(option, options_of(*innermost.command)));
}

bool has_option(const CLI::App& app, const std::string& name) {
  if (app.get_option_no_throw(name) != nullptr) return true;
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  return std::any_of(commands.begin(), commands.end(),
                     [&](const CLI::App* command) { return has_option(*command, name); });
}

}  // namespace

std::string in_options(const CLI::App& app, std::string_view text) {
  return with_fields_named(text, [&](const std::string& name) {
    std::string option = "--" + name;
    std::replace(option.begin(), option.end(), '_', '-');
    return has_option(app, option) ? option : std::string();
  });
}

std::string no_such_command(const CLI::App& app, const std::string& path, const std::string& word) {
  const std::vector<std::string> known = commands_of(app);
  return fmt::format("{} after `{}`; expected one of {}{}; `{} --help` says what each does",
                     word.empty() ? "nothing" : fmt::format("'{}'", shortened(word)), path, fmt::join(known, ", "),
                     did_you_mean(word, known), path);
}

std::string explain(const CLI::App& app, const CLI::ParseError& error) {
  const Innermost innermost = innermost_command(app);
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  const std::string first = rest.empty() ? "" : rest.front();
  const bool is_option = first.size() > 1 && first.front() == '-';
  if (!commands_of(*innermost.command).empty())
    return is_option ? unknown_option(innermost, first) : no_such_command(*innermost.command, innermost.name, first);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !first.empty())
    return is_option ? unknown_option(innermost, first)
                     : fmt::format("'{}' is one word too many; expected what `{} --help` lists", shortened(first),
                                   innermost.name);
  std::string message = error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  return fmt::format("{}; expected the options of `{}`; add --help to see them", message, innermost.name);
}

std::function<std::string(const std::string&)> one_of(std::vector<std::string> words) {
  return [words = std::move(words)](const std::string& word) {
    if (std::find(words.begin(), words.end(), word) != words.end()) return std::string();
    return fmt::format("'{}' is none of {}{}", shortened(word), fmt::join(words, ", "), did_you_mean(word, words));
  };
}

}  // namespace penstock::app
