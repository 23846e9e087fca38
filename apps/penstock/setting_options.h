// Options for the settings of a run, under their names: what `train` and `plan` have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <concepts>
#include <string>
#include <type_traits>
#include <vector>

#include "penstock/settings/settings.h"

#include "commands.h"

namespace penstock::app {

inline const char* group_name(SettingGroup group) {
  switch (group) {
    case SettingGroup::Data:
      return "What is learned from";
    case SettingGroup::Network:
      return "The network";
    case SettingGroup::Pipeline:
      return "How it is cut and scheduled";
    case SettingGroup::Training:
      return "How it is trained";
    case SettingGroup::Processes:
      return "Where it runs";
    case SettingGroup::Run:
      return "What is kept and reported";
  }
  return "";
}

// The word that stands for a number that is chosen.
inline std::string number_of_auto(const std::string& text) {
  return text == "auto" ? std::to_string(automatic_count) : text;
}

// Binds those settings for which `wanted(group, name)` holds to options of their names; present values show as
// defaults.
template <class Wanted>
void add_setting_options(CLI::App& command, TrainSettings& settings, const Wanted& wanted) {
  visit_settings(settings, [&](SettingGroup group, const std::string& name, auto& value, const std::string& meaning) {
    if (!wanted(group, name)) return;
    using Value = std::remove_cvref_t<decltype(value)>;
    CLI::Option* option = nullptr;
    if constexpr (std::is_same_v<Value, bool>) {
      option = command.add_flag("--" + name, value, meaning);
    } else {
      option = command.add_option("--" + name, value, meaning);
      if constexpr (std::integral<Value>) option->check(whole_number<Value>, "");
      // An empty list has no words of its own.
      if constexpr (!std::same_as<Value, std::vector<std::string>>) {
        option->capture_default_str();
        // A restart on fewer processes says some again.
        option->take_last();
      }
    }
    if (name == "devices") option->delimiter(',');
    if (name == "microbatches" || name == "ranks") option->transform(number_of_auto, "", "auto");
    option->group(group_name(group));
  });
}

}  // namespace penstock::app
