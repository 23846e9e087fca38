#include "penstock/schedule/generators.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/base/nearest.h"

#include "schedule/generator_base.h"

namespace penstock {
namespace {

using MakeWithStages = Schedule (*)(int ranks, int stages_per_rank, int microbatches);
using Make = Schedule (*)(int ranks, int microbatches);

// For the families whose number of stages a rank is given.
template <Make make>
Schedule fixed(int ranks, int /*stages_per_rank*/, int microbatches) {
  return make(ranks, microbatches);
}

constexpr std::array families{
    ScheduleFamily{.name = "naive", .title = "naive", .paper = "", .bubble = "utilisation 1/p", .memory = "1"},
    ScheduleFamily{.name = "forward-only",
                   .title = "forward only",
                   .paper = "",
                   .bubble = "0",
                   .memory = "0",
                   .forward_only = true},
    ScheduleFamily{
        .name = "gpipe", .title = "GPipe", .paper = "arXiv 1811.06965", .bubble = "(p-1)(T_F+T_B+T_W)", .memory = "m"},
    ScheduleFamily{.name = "1f1b",
                   .title = "1F1B",
                   .paper = "arXiv 1806.03377, 2104.04473",
                   .bubble = "(p-1)(T_F+T_B+T_W)",
                   .memory = "min(p, m)"},
    ScheduleFamily{.name = "interleaved-1f1b",
                   .title = "interleaved 1F1B",
                   .paper = "arXiv 2104.04473",
                   .bubble = "(p-1)(T_F+T_B+T_W)",
                   .memory = "min(pv+p-1, mv)",
                   .stages_per_rank = 2,
                   .stages_per_rank_varies = true},
    ScheduleFamily{.name = "chimera",
                   .title = "Chimera",
                   .paper = "arXiv 2107.06925",
                   .bubble = "share (p-2)/(2m+p-2)",
                   .memory = "p/2+1 to p",
                   .ranks_multiple = 2,
                   .bidirectional = true},
    ScheduleFamily{.name = "looped-bfs",
                   .title = "looped BFS",
                   .paper = "arXiv 2211.05953",
                   .bubble = "(p-1)(T_F+T_B+T_W)",
                   .memory = "mv",
                   .stages_per_rank = 2,
                   .stages_per_rank_varies = true},
    ScheduleFamily{.name = "hanayo",
                   .title = "Hanayo",
                   .paper = "arXiv 2308.15762",
                   .bubble = "share (2p-2)/(3pw+p-1)",
                   .memory = "about pv",
                   .stages_per_rank = 2,
                   .stages_per_rank_varies = true,
                   .stages_multiple = 2},
    ScheduleFamily{.name = "zb-h1",
                   .title = "ZB-H1",
                   .paper = "arXiv 2401.10241",
                   .bubble = "(p-1)(T_F+T_B-T_W)",
                   .memory = "min(p, m)"},
    ScheduleFamily{.name = "zb-h2",
                   .title = "ZB-H2",
                   .paper = "arXiv 2401.10241",
                   .bubble = "(p-1)(T_F+T_B-2T_W)",
                   .memory = "min(2p-1, m)"},
    ScheduleFamily{.name = "interleaved-zb",
                   .title = "interleaved zero bubble",
                   .paper = "after arXiv 2401.10241",
                   .bubble = "(p-1)(T_F+T_B-T_W)",
                   .memory = "min(pv, mv)",
                   .stages_per_rank = 2,
                   .stages_per_rank_varies = true},
    ScheduleFamily{.name = "zb-v",
                   .title = "ZB-V",
                   .paper = "arXiv 2401.10241",
                   .bubble = "0 for T_F=T_B=T_W",
                   .memory = "min(2p, 2m)",
                   .stages_per_rank = 2},
    ScheduleFamily{.name = "v-half",
                   .title = "V-Half",
                   .paper = "arXiv 2405.15362",
                   .bubble = "about p(T_F+T_B+T_W)",
                   .memory = "2 floor((p+2)/2)",
                   .stages_per_rank = 2},
    ScheduleFamily{.name = "v-min",
                   .title = "V-Min",
                   .paper = "arXiv 2405.15362",
                   .bubble = "about 4p(T_F+T_B+T_W)/3",
                   .memory = "2 floor((p+4)/3)",
                   .stages_per_rank = 2},
    ScheduleFamily{.name = "dualpipe",
                   .title = "DualPipe",
                   .paper = "arXiv 2412.19437",
                   .bubble = "(p/2-1)(F&B+B-3T_W)",
                   .memory = "min(p+1, m)",
                   .ranks_multiple = 2,
                   .bidirectional = true},
    ScheduleFamily{.name = "dualpipev",
                   .title = "DualPipeV",
                   .paper = "after arXiv 2412.19437",
                   .bubble = "(p-1)(F&B+B-3T_W)",
                   .memory = "min(2p+1, 2m)",
                   .stages_per_rank = 2},
};

// In the order of `families`.
constexpr std::array<MakeWithStages, families.size()> makers{
    fixed<naive_schedule>,
    fixed<forward_only_schedule>,
    fixed<gpipe_schedule>,
    fixed<one_f_one_b_schedule>,
    interleaved_1f1b_schedule,
    fixed<chimera_schedule>,
    looped_bfs_schedule,
    hanayo_schedule,
    fixed<zb_h1_schedule>,
    fixed<zb_h2_schedule>,
    interleaved_zero_bubble_schedule,
    fixed<zb_v_schedule>,
    fixed<v_half_schedule>,
    fixed<v_min_schedule>,
    fixed<dualpipe_schedule>,
    fixed<dualpipev_schedule>,
};

}  // namespace

std::span<const ScheduleFamily> schedule_families() { return families; }

const ScheduleFamily* find_schedule_family(std::string_view name) {
  const auto* const found = std::find_if(std::begin(families), std::end(families),
                                         [&](const ScheduleFamily& family) { return family.name == name; });
  return found == std::end(families) ? nullptr : &*found;
}

const ScheduleFamily& schedule_family(std::string_view name) {
  const ScheduleFamily* const found = find_schedule_family(name);
  if (found != nullptr) return *found;
  std::vector<std::string> names;
  names.reserve(families.size());
  for (const ScheduleFamily& family : families) names.emplace_back(family.name);
  throw bad_input(fmt::format("there is no schedule '{}'", shortened(name)),
                  fmt::format("one of {}", fmt::join(names, ", ")), "correct the name" + did_you_mean(name, names));
}

void check_generated(std::string_view name, int ranks, int microbatches, std::optional<int> stages_per_rank) {
  const ScheduleFamily& family = schedule_family(name);
  const int stages = stages_per_rank.value_or(family.stages_per_rank);
  if (!family.stages_per_rank_varies && stages != family.stages_per_rank)
    throw bad_input(fmt::format("{} with {} a rank", name, counted(stages, "stage")),
                    fmt::format("{}, the only number it has", family.stages_per_rank),
                    "leave the number out, or take interleaved-1f1b");
  check_sizes(ranks, stages, microbatches);
  if (family.bidirectional) check_two_directions(name, ranks);
  if (family.stages_multiple > 1) check_waves(stages);
}

Schedule make_schedule(std::string_view name, int ranks, int microbatches, std::optional<int> stages_per_rank) {
  check_generated(name, ranks, microbatches, stages_per_rank);
  const ScheduleFamily& family = schedule_family(name);
  return makers.at(as_index(&family - families.data()))(ranks, stages_per_rank.value_or(family.stages_per_rank),
                                                        microbatches);
}

}  // namespace penstock
