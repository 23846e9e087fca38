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
  for (const CLI::App* command : app.get_subcommands([](const CLI::App* known) { return !known->get_group().empty(); }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  // What is in no group is not for people.
  for (const CLI::Option* option :
       app.get_options([](const CLI::Option* known) { return !known->get_group().empty(); }))
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::string unknown_option(const Innermost& innermost, const std::string& word) {
  const std::string option = word.substr(0, word.find('='));
  return fmt::format("unknown option '{0}' of `{1}`; expected one that `{1} --help` lists{2}", shortened(option),
                     innermost.name, did_you_mean(option, options_of(*innermost.command)));
}

// "--steps" of "--steps: 'x' is not a whole number" and "--ranks is required".
std::string option_in(const std::string& message) { return message.substr(0, message.find_first_of(": ")); }

// The parser's own words for a value that an option does not take, or for one that is missing.
std::string unusable_value(const Innermost& innermost, const CLI::ParseError& error, const std::string& message) {
  const auto ends_with = [&](std::string_view end) { return std::string_view(message).ends_with(end); };
  const std::string see = fmt::format("`{} --help` describes it", innermost.name);
  constexpr std::string_view unreadable = "Could not convert: ";
  constexpr std::string_view left_out = " is required";
  if (message.starts_with(unreadable)) {
    const std::string rest = message.substr(unreadable.size());
    const std::string option = rest.substr(0, rest.find(" = "));
    const std::string value = rest.size() > option.size() ? rest.substr(option.size() + 3) : "";
    const CLI::Option* known = innermost.command->get_option_no_throw(option);
    const bool is_flag = known != nullptr && known->get_expected_max() == 0;
    return fmt::format("{} is '{}'; expected {}; {}", option, shortened(value),
                       is_flag ? fmt::format("{0} alone, {0}=true or {0}=false", option) : "a value that it takes",
                       see);
  }
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && ends_with(left_out))
    return fmt::format("no {}; expected one, which `{}` cannot do without; {}", option_in(message), innermost.name,
                       see);
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr && ends_with(" missing"))
    return fmt::format("{} without its value; expected one after it; {}", option_in(message), see);
  if (dynamic_cast<const CLI::ValidationError*>(&error) != nullptr)
    return fmt::format("{}; expected a value that {} takes; {}", message, option_in(message), see);
  return fmt::format("{}; expected what `{} --help` lists; correct the command line", message, innermost.name);
}

bool has_option(const CLI::App& app, const std::string& name) {
  if (app.get_option_no_throw(name) != nullptr) return true;
  const auto commands = app.get_subcommands([](const CLI::App* known) { return !known->get_group().empty(); });
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
  return unusable_value(innermost, error, message);
}

std::function<std::string(const std::string&)> one_of(std::vector<std::string> words) {
  return [words = std::move(words)](const std::string& word) {
    if (std::find(words.begin(), words.end(), word) != words.end()) return std::string();
    return fmt::format("'{}' is none of {}{}", shortened(word), fmt::join(words, ", "), did_you_mean(word, words));
  };
}

}  // namespace penstock::app
