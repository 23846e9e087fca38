#include "shell_pages.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>
#include <memory>
#include <utility>

#include "penstock/base/file.h"

#include "help.h"

namespace penstock::app {
namespace {

// The words of a command behind the program's name, and the command. The program itself has none.
struct Known {
  std::vector<std::string> path;
  const CLI::App* command = nullptr;
};

std::vector<const CLI::App*> listed_commands(const CLI::App& command) {
  // What is in no group is not for people.
  return command.get_subcommands([](const CLI::App* known) { return !known->get_group().empty(); });
}

void add_known(const CLI::App& command, const std::vector<std::string>& path, std::vector<Known>& all) {
  all.push_back({path, &command});
  for (const CLI::App* inner : listed_commands(command)) {
    std::vector<std::string> inner_path = path;
    inner_path.push_back(inner->get_name());
    add_known(*inner, inner_path, all);
  }
}

std::vector<Known> known_commands(const CLI::App& program) {
  std::vector<Known> all;
  add_known(program, {}, all);
  return all;
}

std::vector<const CLI::Option*> listed_options(const CLI::App& command) {
  // What is in no group is not for people.
  return command.get_options([](const CLI::Option* option) {
    return !option->get_positional() && option->nonpositional() && !option->get_group().empty();
  });
}

std::vector<const CLI::Option*> arguments_of(const CLI::App& command) {
  return command.get_options([](const CLI::Option* option) { return option->get_positional(); });
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

std::vector<std::string> completed_words(const CLI::App& command) {
  std::vector<std::string> words;
  for (const CLI::App* inner : listed_commands(command)) words.push_back(inner->get_name());
  for (const CLI::Option* option : listed_options(command))
    for (std::string& name : typed_names(*option)) words.push_back(std::move(name));
  return words;
}

std::string replaced(std::string_view text, std::string_view what, std::string_view with) {
  std::string result;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what)) {
    result.append(text.substr(0, at)).append(with);
    text.remove_prefix(at + what.size());
  }
  return result.append(text);
}

// Within single quotes of a shell.
std::string quoted(const std::string& text) { return replaced(text, "'", "'\\''"); }

// What zsh shows of an option stands between brackets.
std::string zsh_meaning(const std::string& text) {
  return quoted(replaced(replaced(replaced(text, "\\", "\\\\"), "[", "\\["), "]", "\\]"));
}

}  // namespace

std::string bash_completion(const CLI::App& program) {
  std::string cases;
  std::string commands;
  for (const Known& known : known_commands(program)) {
    std::string with_values;
    for (const CLI::Option* option : listed_options(*known.command))
      if (takes_value(*option)) with_values += fmt::format(" {}", fmt::join(typed_names(*option), " "));
    cases += fmt::format("    '{}') words='{}' values='{} ' ;;\n", fmt::join(known.path, " "),
                         fmt::join(completed_words(*known.command), " "), with_values);
    if (!known.path.empty()) commands += fmt::format("'{}'|", fmt::join(known.path, " "));
  }
  if (!commands.empty()) commands.pop_back();
  return fmt::format(R"(# bash completion for penstock
_penstock() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path='' longer words='' values='' index
  for ((index = 1; index < COMP_CWORD; ++index)); do
    longer="${{path:+$path }}${{COMP_WORDS[index]}}"
    case "$longer" in {}) path=$longer ;; esac
  done
  case "$path" in
{}  esac
  if [[ $values == *" $before "* || ($current != -* && -n $path && $words != [a-z]*) ]]; then
    compopt -o default
    COMPREPLY=()
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _penstock penstock
)",
                     commands, cases);
}

std::string zsh_completion(const CLI::App& program) {
  std::string functions;
  for (const Known& known : known_commands(program)) {
    functions += fmt::format("_penstock{}{}() {{\n", known.path.empty() ? "" : "_", fmt::join(known.path, "_"));
    const auto inner = listed_commands(*known.command);
    if (!inner.empty()) {
      functions += "  local -a commands=(\n";
      for (const CLI::App* command : inner)
        functions +=
            fmt::format("    '{}:{}'\n", command->get_name(), quoted(replaced(command->get_description(), ":", "\\:")));
      functions += "  )\n";
    }
    functions += "  local state\n  _arguments -C \\\n";
    for (const CLI::Option* option : listed_options(*known.command))
      for (const std::string& name : typed_names(*option))
        functions += fmt::format("    '{}[{}]{}' \\\n", name, zsh_meaning(option->get_description()),
                                 takes_value(*option) ? ":value:_files" : "");
    if (inner.empty()) {
      functions += "    '*: :_files'\n}\n\n";
      continue;
    }
    functions +=
        "    '1: :->command' '*:: :->rest'\n  case $state in\n    command) _describe command commands ;;\n"
        "    rest)\n      case $words[1] in\n";
    for (const CLI::App* command : inner)
      functions += fmt::format("        {}) _penstock{}{}_{} ;;\n", command->get_name(), known.path.empty() ? "" : "_",
                               fmt::join(known.path, "_"), command->get_name());
    functions += "      esac ;;\n  esac\n}\n\n";
  }
  return fmt::format("#compdef penstock\n\n{}_penstock \"$@\"\n", functions);
}

std::string fish_completion(const CLI::App& program) {
  std::string text = "# fish completion for penstock\n";
  for (const Known& known : known_commands(program)) {
    std::string seen = "__fish_use_subcommand";
    if (!known.path.empty()) {
      seen.clear();
      for (const std::string& word : known.path)
        seen += fmt::format("{}__fish_seen_subcommand_from {}", seen.empty() ? "" : "; and ", word);
    }
    const auto inner_commands = listed_commands(*known.command);
    // Until one of them is there.
    std::string none_seen = seen;
    if (!known.path.empty()) {
      none_seen += "; and not __fish_seen_subcommand_from";
      for (const CLI::App* inner : inner_commands) none_seen += " " + inner->get_name();
    }
    for (const CLI::App* inner : inner_commands)
      text += fmt::format("complete -c penstock -f -n '{}' -a {} -d '{}'\n", none_seen, inner->get_name(),
                          quoted(inner->get_description()));
    for (const CLI::Option* option : listed_options(*known.command)) {
      std::string names;
      for (const std::string& name : option->get_snames()) names += fmt::format(" -s {}", name);
      for (const std::string& name : option->get_lnames()) names += fmt::format(" -l {}", name);
      text += fmt::format("complete -c penstock -n '{}'{}{} -d '{}'\n", seen, names, takes_value(*option) ? " -r" : "",
                          quoted(option->get_description()));
    }
  }
  return text;
}

namespace {

// Text as roff has it: nothing of it is a request, and hyphens and quotes are those that are typed.
std::string roff(const std::string& text) {
  std::string escaped = replaced(replaced(replaced(text, "\\", "\\e"), "-", "\\-"), "'", "\\(aq");
  if (escaped.starts_with('.')) escaped.insert(0, "\\&");
  return escaped;
}

std::string option_lines(const CLI::App& command) {
  std::vector<std::string> groups;
  for (const CLI::Option* option : listed_options(command))
    if (std::find(groups.begin(), groups.end(), option->get_group()) == groups.end())
      groups.push_back(option->get_group());
  std::string text;
  for (const std::string& group : groups) {
    // The section itself has that name.
    if (group != "Options") text += fmt::format(".SS {}\n", roff(group));
    for (const CLI::Option* option : listed_options(command)) {
      if (option->get_group() != group) continue;
      std::vector<std::string> names;
      for (const std::string& name : typed_names(*option)) names.push_back(fmt::format("\\fB{}\\fR", roff(name)));
      text += fmt::format(".TP\n{}{}\n", fmt::join(names, ", "), takes_value(*option) ? " \\fIvalue\\fR" : "");
      const std::string usual = usual_value(*option);
      text += fmt::format("{}.{}\n", roff(option->get_description()),
                          usual.empty() ? "" : fmt::format(" Default: {}.", roff(usual)));
    }
  }
  return text;
}

// "run", or "[command]" where it may be left out with dots where there may be several.
std::string argument_name(const CLI::Option& argument) {
  std::string name = fmt::format("\\fI{}\\fR", roff(argument.get_name(/*positional=*/true)));
  if (argument.get_items_expected_max() > 1) name += " ...";
  return argument.get_required() ? name : fmt::format("[{}]", name);
}

std::string argument_lines(const CLI::App& command) {
  std::string text;
  for (const CLI::Option* argument : arguments_of(command))
    text += fmt::format(".TP\n\\fI{}\\fR\n{}.\n", roff(argument->get_name(/*positional=*/true)),
                        roff(argument->get_description()));
  return text.empty() ? text : ".SH ARGUMENTS\n" + text;
}

std::string example_lines(const std::string& command) {
  std::string text;
  for (const Example& example : examples_of(command))
    text += fmt::format(".PP\n{}\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", roff(introduction(example)),
                        roff(std::string(example.line)));
  return text.empty() ? text : ".SH EXAMPLES\n" + text;
}

// Without its own name in front, which stands there already.
std::string described(const CLI::App& command) {
  const std::string& text = command.get_description();
  const std::string name = command.get_name() + ": ";
  return text.starts_with(name) ? text.substr(name.size()) : text;
}

std::string in_capitals(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char letter) { return std::toupper(letter); });
  return text;
}

}  // namespace

std::vector<ManualPage> manual_pages(const CLI::App& program, const std::string& version) {
  std::vector<ManualPage> pages;
  for (const Known& known : known_commands(program)) {
    const std::string dashes = fmt::format("{}", fmt::join(known.path, "-"));
    const std::string words = fmt::format("{}", fmt::join(known.path, " "));
    ManualPage page{known.path.empty() ? "penstock" : fmt::format("penstock-{}", dashes), ""};
    const auto inner = listed_commands(*known.command);
    page.text =
        fmt::format(".TH {} 1 \"\" \"penstock {}\" \"penstock\"\n", roff(in_capitals(page.name)), roff(version));
    page.text += fmt::format(".SH NAME\n{} \\- {}\n", roff(page.name), roff(described(*known.command)));
    page.text += fmt::format(".SH SYNOPSIS\n\\fBpenstock{}{}\\fR [\\fIoptions\\fR]{}", known.path.empty() ? "" : " ",
                             roff(words), inner.empty() ? "" : " \\fIcommand\\fR");
    for (const CLI::Option* argument : arguments_of(*known.command)) page.text += " " + argument_name(*argument);
    page.text += "\n" + argument_lines(*known.command);
    if (!inner.empty()) {
      page.text += ".SH COMMANDS\n";
      for (const CLI::App* command : inner)
        page.text += fmt::format(".TP\n\\fB{}\\fR\n{}\n", roff(command->get_name()), roff(command->get_description()));
    }
    page.text += fmt::format(".SH OPTIONS\n{}", option_lines(*known.command));
    page.text += example_lines(words);
    page.text +=
        ".SH EXIT STATUS\n0 for success, 2 for bad input, 1 for a run that failed, 128 and the number of the signal "
        "for "
        "one that a signal stopped.\n";
    page.text += ".SH SEE ALSO\n";
    if (known.path.empty()) {
      page.text += "The pages of the commands, such as \\fBpenstock\\-train\\fR(1).\n";
    } else {
      const std::string parent = known.path.size() == 1 ? "penstock" : fmt::format("penstock-{}", known.path.front());
      page.text += fmt::format("\\fB{}\\fR(1)\n", roff(parent));
    }
    pages.push_back(std::move(page));
  }
  return pages;
}

void write_shell_pages(const CLI::App& program, const std::string& version, const std::filesystem::path& prefix) {
  const auto write = [&](const std::filesystem::path& file, const std::string& text) {
    std::filesystem::create_directories((prefix / file).parent_path());
    write_file_atomically(prefix / file, text);
  };
  write("share/bash-completion/completions/penstock", bash_completion(program));
  write("share/zsh/site-functions/_penstock", zsh_completion(program));
  write("share/fish/vendor_completions.d/penstock.fish", fish_completion(program));
  for (const ManualPage& page : manual_pages(program, version))
    write(fmt::format("share/man/man1/{}.1", page.name), page.text);
}

Command add_shell_pages_command(CLI::App& program, std::string version) {
  auto prefix = std::make_shared<std::string>();
  CLI::App* command =
      program.add_subcommand("shell-pages", "Writes completions and manual pages, as an install has them");
  command->group("");
  command->add_option("prefix", *prefix, "Folder that share/ is written under")->required();
  return [&program, prefix, version = std::move(version)] {
    write_shell_pages(program, version, *prefix);
    return 0;
  };
}

}  // namespace penstock::app
