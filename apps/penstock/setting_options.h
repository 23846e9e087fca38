// Options for typed settings, under their names: what `train` and `plan` have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/settings/setting_text.h"
#include "penstock/settings/settings.h"
#include "penstock/settings/visit_settings.h"

#include "commands.h"

namespace penstock::app {

// An option for a value that is one text, which shows as its default. What it is given is read while the command line
// is parsed, which throws Error (BadInput) where it is none.
template <TextSetting Value>
CLI::Option* add_text_option(CLI::App& command, const std::string& name, Value& value, const std::string& meaning) {
  const CLI::callback_t read = [name, &value](const CLI::results_t& texts) {
    read_setting(name, texts.back(), value);
    return true;
  };
  return command.add_option("--" + name, read, meaning)
      ->type_name("TEXT")
      ->default_str(setting_text(value))
      ->take_last();
}

// The same for a number, or auto.
template <CountChoice Value>
CLI::Option* add_count_option(CLI::App& command, const std::string& name, Value& value, const std::string& meaning) {
  const auto check = [](const std::string& text) {
    return text == to_text(Value(automatic)) ? std::string() : whole_number<int>(text);
  };
  return add_text_option(command, name, value, meaning)->type_name("INT")->check(check, "");
}

// An option for any setting.
template <class Value>
CLI::Option* add_setting_option(CLI::App& command, const std::string& name, Value& value, const std::string& meaning) {
  if constexpr (CountChoice<Value>) {
    return add_count_option(command, name, value, meaning);
  } else if constexpr (TextSetting<Value>) {
    return add_text_option(command, name, value, meaning);
  } else if constexpr (std::same_as<Value, bool>) {
    return command.add_flag("--" + name, value, meaning);
  } else if constexpr (std::same_as<Value, std::optional<bool>>) {
    // A flag of old, which may also be left open: --name=auto.
    return command.add_flag("--" + name + "{true},!--no-" + name, meaning)
        ->each([name, &value](const std::string& word) {
          if (word != "auto" && word != "true" && word != "false")
            throw bad_input("--" + name + " is " + shortened(word), "true, false or auto", "correct --" + name);
          value = word == "auto" ? std::nullopt : std::optional(word == "true");
        })
        ->take_last()
        ->default_str(value ? (*value ? "true" : "false") : "auto");
  } else {
    CLI::Option* option = command.add_option("--" + name, value, meaning);
    if constexpr (std::integral<Value>) option->check(whole_number<Value>, "");
    // An empty list has no words of its own.
    if constexpr (!std::same_as<Value, std::vector<std::string>>) option->capture_default_str()->take_last();
    return option;
  }
}

// Binds those settings for which `wanted(group, name)` holds to options of their names; present values show as
// defaults.
template <class Wanted>
void add_setting_options(CLI::App& command, TrainSettings& settings, const Wanted& wanted) {
  visit_settings(settings, [&](SettingGroup group, const std::string& name, auto& value, const std::string& meaning) {
    if (!wanted(group, name)) return;
    CLI::Option* option = add_setting_option(command, name, value, meaning);
    if (name == "devices" || name == "lora-targets") option->delimiter(',');
    option->group(heading(group));
  });
}

}  // namespace penstock::app
