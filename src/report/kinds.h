/// \file
/// How each kind of action looks, in every drawing alike.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "penstock/base/index.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// The four colours are far apart for the three common kinds of colour blindness and in grey (after Okabe and Ito
/// 2008), and dark text on each has a contrast of at least 4.5.
struct KindStyle {
  std::string_view letter;        ///< as in the text form; "" for what is not computed
  std::string_view category;      ///< in traces and JSON
  std::string_view title;         ///< in legends
  std::string_view fill;          ///< CSS colour of the cell
  std::string_view ink;           ///< CSS colour of the number in it
  std::string_view trace_colour;  ///< one of the fixed names that chrome://tracing knows
  int terminal_colour;            ///< background among the 256 of a terminal
  int terminal_light;             ///< the same, lighter: for all but the last stage of a rank
};

inline constexpr std::array<KindStyle, 5> kind_styles = {{
    {"F", "forward", "forward", "#56b4e9", "#06283d", "thread_state_running", 74, 153},
    {"B", "backward", "backward", "#e69f00", "#2b1d00", "rail_response", 214, 223},
    {"I", "input_backward", "input backward", "#f0e442", "#2b2700", "rail_animation", 227, 230},
    {"W", "weight_backward", "weight backward", "#35a583", "#03251b", "good", 36, 115},
    {"", "communication", "communication", "#b9b9b9", "#1f1f1f", "grey", 248, 252},
}};

[[nodiscard]] inline const KindStyle& style_of(ActionKind kind) {
  return is_compute(kind) ? entry(kind_styles, kind) : kind_styles.back();
}

}  // namespace penstock
