#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <limits>
#include <nlohmann/json.hpp>

#include "penstock/base/index.h"
#include "penstock/report/report.h"

#include "report/chunks.h"
#include "report/extent.h"
#include "report/kinds.h"
#include "report/markup.h"
#include "report/page.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

/// One flat list for each rank: a page of a million boxes should not spend its size on the names of fields.
Json events_to_json(const std::vector<Event>& events) {
  Json list = Json::array();
  for (const Event& event : events) {
    if (!is_compute(event.action.kind)) continue;
    list.insert(list.end(),
                {event.start.count, event.end.count, static_cast<int>(event.action.kind), event.action.stage.value,
                 event.action.microbatch.value, event.action.overlaps_next ? 1 : 0});
  }
  return list;
}

Json memory_to_json(const Timeline& timeline, std::size_t rank) {
  Json list = Json::array();
  // Where every size is left out of the costs there is nothing to draw.
  if (peak_bytes(timeline, RankId{static_cast<std::int32_t>(rank)}).count == 0) return list;
  if (rank < timeline.memory.size())
    for (const MemorySample& sample : timeline.memory[rank])
      list.insert(list.end(), {Json(sample.time.count), Json(sample.bytes.count)});
  return list;
}

Json timeline_to_json(const NamedTimeline& named, const Chunks& chunks) {
  const TimelineSummary summary = summarise(named.timeline);
  Json ranks = Json::array();
  for (std::size_t rank = 0; rank < named.timeline.ranks.size(); ++rank) {
    ranks.push_back({{"stages", chunks.stages_of(rank)},
                     {"events", events_to_json(named.timeline.ranks[rank])},
                     {"memory", memory_to_json(named.timeline, rank)},
                     {"busy", summary.ranks[rank].busy.count},
                     {"peak_activations", summary.ranks[rank].peak_activations},
                     {"peak_bytes", summary.ranks[rank].peak_bytes.count}});
  }
  return {{"name", named.name},
          {"makespan", summary.makespan.count},
          {"bubble_makespan", summary.bubble_makespan},
          {"bubble_span", summary.bubble_span},
          {"ranks", ranks}};
}

/// For each kind its shades: of a rank with one stage, of one with two, and so on to `most`.
Json kinds_to_json(const std::vector<NamedTimeline>& timelines, std::size_t most) {
  std::array<bool, kind_styles.size()> used{};
  for (const NamedTimeline& named : timelines)
    for (const auto& events : named.timeline.ranks)
      for (const Event& event : events)
        if (is_compute(event.action.kind)) used.at(as_index(event.action.kind)) = true;
  Json kinds = Json::array();
  for (std::size_t kind = 0; kind + 1 < kind_styles.size(); ++kind) {
    const KindStyle& style = kind_styles.at(kind);
    Json shades = Json::array();
    for (std::size_t count = 1; count <= most; ++count) {
      Json& row = shades.emplace_back(Json::array());
      for (std::size_t position = 0; position < count; ++position) row.push_back(shade(style.fill, position, count));
    }
    kinds.push_back({{"letter", style.letter},
                     {"title", style.title},
                     {"ink", style.ink},
                     {"used", used.at(kind)},
                     {"shades", shades}});
  }
  return kinds;
}

}  // namespace

Json chart_data(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options, const PageExtras& extras) {
  double first = std::numeric_limits<double>::infinity();
  double last = 0;
  std::size_t most = 1;
  Json drawn = Json::array();
  for (const NamedTimeline& named : timelines) {
    const Extent extent = extent_of(named.timeline);
    first = std::min(first, extent.first);
    last = std::max(last, extent.last);
    const Chunks chunks(named.timeline);
    most = std::max(most, chunks.most());
    drawn.push_back(timeline_to_json(named, chunks));
  }
  return {{"unit", options.time_unit},
          {"first", timelines.empty() ? 0 : first},
          {"last", last},
          {"kinds", kinds_to_json(timelines, most)},
          {"rank_by_rank", extras.rank_by_rank},
          {"figures", extras.figures},
          {"only_activations", extras.only_activations},
          {"timelines", drawn}};
}

std::string to_script(const Json& data) {
  std::string text;
  for (const char letter : data.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    if (letter == '<')
      text += "\\u003c";
    else
      text += letter;
  }
  return text;
}

std::string to_html(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options) {
  return make_page(timelines, options, {});
}

std::string make_page(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options,
                      const PageExtras& extras) {
  return fill(page_template, {{"%TITLE%", escape_markup(options.title)},
                              {"%CHART%", std::string(timeline_chart)},
                              {"%DATA%", to_script(chart_data(timelines, options, extras))}});
}

std::string fill(std::string_view page, const std::vector<Filling>& fillings) {
  std::string out;
  while (!page.empty()) {
    const Filling* next = &fillings.front();
    std::size_t at = std::string_view::npos;
    for (const Filling& filling : fillings) {
      const std::size_t found = page.find(filling.first);
      if (found < at) {
        at = found;
        next = &filling;
      }
    }
    out += page.substr(0, at);
    if (at == std::string_view::npos) break;
    out += next->second;
    page.remove_prefix(at + next->first.size());
  }
  return out;
}

}  // namespace penstock
