#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <utility>

#include "penstock/base/error.h"

#include "checkpoint/json_events.h"

namespace penstock {
namespace {

static_assert(std::endian::native == std::endian::little, "the layout is little-endian, and so is what is read into");

struct DtypeRow {
  std::string_view name;
  std::uint64_t bytes;
};

constexpr std::array<DtypeRow, 16> dtype_rows = {{{.name = "BOOL", .bytes = 1},
                                                  {.name = "U8", .bytes = 1},
                                                  {.name = "I8", .bytes = 1},
                                                  {.name = "F8_E4M3", .bytes = 1},
                                                  {.name = "F8_E5M2", .bytes = 1},
                                                  {.name = "U16", .bytes = 2},
                                                  {.name = "I16", .bytes = 2},
                                                  {.name = "F16", .bytes = 2},
                                                  {.name = "BF16", .bytes = 2},
                                                  {.name = "U32", .bytes = 4},
                                                  {.name = "I32", .bytes = 4},
                                                  {.name = "F32", .bytes = 4},
                                                  {.name = "U64", .bytes = 8},
                                                  {.name = "I64", .bytes = 8},
                                                  {.name = "F64", .bytes = 8},
                                                  {.name = "C64", .bytes = 8}}};

constexpr std::uint64_t largest_dimension = std::numeric_limits<std::int64_t>::max();
constexpr std::string_view metadata_key = "__metadata__";

Error damaged_header(const std::string& file, const std::string& got, const std::string& expected) {
  return bad_input(fmt::format("{}: {}", file, got), expected,
                   "the file is damaged or no safetensors file: use another one");
}

/// One tensor while its keys come in: any order, each exactly once.
struct PendingEntry {
  std::optional<SafetensorsDtype> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

/// Puts the header together out of the events of its JSON.
class HeaderBuilder {
 public:
  explicit HeaderBuilder(const std::string& file) : file_(file) {}

  void take(std::span<const std::string> keys, JsonEvent&& event) {
    if (keys.empty()) return;  // the outermost object itself
    if (keys[0] == metadata_key) {
      take_metadata(keys, std::move(event));
    } else if (keys.size() == 1) {
      take_tensor(keys[0], event);
    } else {
      take_field(keys, event);
    }
  }

  [[nodiscard]] SafetensorsHeader take_header() { return std::move(header_); }

 private:
  void take_metadata(std::span<const std::string> keys, JsonEvent&& event) {
    if (keys.size() == 1) {
      if (std::holds_alternative<ObjectEnd>(event)) return;
      if (!std::holds_alternative<ObjectStart>(event))
        throw damaged_header(file_, "__metadata__ is no object", "text by key");
      if (std::exchange(metadata_seen_, true))
        throw damaged_header(file_, "__metadata__ stands twice", "every key once");
      return;
    }
    auto* text = std::get_if<std::string>(&event);
    if (text == nullptr || keys.size() != 2)
      throw damaged_header(file_, fmt::format("the metadata {} is no text", in_quotes(keys[1])), "text by key");
    if (!header_.metadata.emplace(keys[1], std::move(*text)).second)
      throw damaged_header(file_, fmt::format("the metadata {} stands twice", in_quotes(keys[1])), "every key once");
  }

  void take_tensor(const std::string& name, const JsonEvent& event) {
    if (std::holds_alternative<ObjectEnd>(event)) return finish_tensor(name);
    if (!std::holds_alternative<ObjectStart>(event))
      throw damaged_header(file_, fmt::format("{} is no object", in_quotes(name)), "dtype, shape and data_offsets");
    if (header_.tensors.contains(name))
      throw damaged_header(file_, fmt::format("the tensor {} stands twice", in_quotes(name)), "every name once");
    pending_ = {};
  }

  void take_field(std::span<const std::string> keys, const JsonEvent& event) {
    const std::string& name = keys[0];
    if (keys.size() == 2 && keys[1] == "dtype") return take_dtype(name, event);
    const bool shape = keys[1] == "shape";
    if (keys.size() != 2 || (!shape && keys[1] != "data_offsets"))
      throw damaged_header(file_, fmt::format("{} has the unknown key {}", in_quotes(name), in_quotes(keys.back())),
                           "dtype, shape and data_offsets");
    const auto unusable = [&](const char* expected) {
      return damaged_header(file_, fmt::format("{} has an unusable {}", in_quotes(name), keys[1]), expected);
    };
    if (std::holds_alternative<ArrayStart>(event)) {
      if (shape ? pending_.shape.has_value() : pending_.offsets.has_value()) throw unusable("every key once");
      if (shape)
        pending_.shape.emplace();
      else
        pending_.offsets.emplace();
      return;
    }
    const auto* number = std::get_if<std::uint64_t>(&event);
    if (number == nullptr || !(shape ? pending_.shape.has_value() : pending_.offsets.has_value()))
      throw unusable("an array of counts");
    if (shape) {
      if (*number > largest_dimension || pending_.shape->size() == safetensors_most_dimensions)
        throw unusable("at most 64 dimensions that each fit into 63 bits");
      pending_.shape->push_back(static_cast<std::int64_t>(*number));
    } else {
      if (pending_.offsets->size() == 2) throw unusable("a begin and an end");
      pending_.offsets->push_back(*number);
    }
  }

  void take_dtype(const std::string& name, const JsonEvent& event) {
    const auto* text = std::get_if<std::string>(&event);
    if (text == nullptr || pending_.dtype.has_value())
      throw damaged_header(file_, fmt::format("{} has an unusable dtype", in_quotes(name)), "one dtype as text");
    const auto* const row = std::ranges::find(dtype_rows, *text, &DtypeRow::name);
    if (row == dtype_rows.end()) {
      std::vector<std::string_view> known;
      known.reserve(dtype_rows.size());
      for (const DtypeRow& each : dtype_rows) known.push_back(each.name);
      throw bad_input(fmt::format("{}: {} has the dtype {}", file_, in_quotes(name), in_quotes(*text)),
                      fmt::format("one of {}", fmt::join(known, ", ")), "convert the tensor to one of these");
    }
    pending_.dtype = static_cast<SafetensorsDtype>(row - dtype_rows.begin());
  }

  void finish_tensor(const std::string& name) {
    if (!pending_.dtype || !pending_.shape || !pending_.offsets || pending_.offsets->size() != 2)
      throw damaged_header(file_, fmt::format("{} is not described in full", in_quotes(name)),
                           "dtype, shape and data_offsets");
    SafetensorsEntry entry{.dtype = *pending_.dtype,
                           .shape = std::move(*pending_.shape),
                           .begin = (*pending_.offsets)[0],
                           .end = (*pending_.offsets)[1]};
    header_.tensors.emplace(name, std::move(entry));
  }

  const std::string& file_;
  SafetensorsHeader header_;
  PendingEntry pending_;
  bool metadata_seen_ = false;
};

/// The tensors must cover the data exactly, one behind the other.
void check_places(const SafetensorsHeader& header, std::uint64_t data_bytes, const std::string& file) {
  using Place = std::pair<const std::string, SafetensorsEntry>;
  std::vector<const Place*> places;
  for (const Place& place : header.tensors) {
    const auto& [name, entry] = place;
    if (entry.begin > entry.end || entry.end > data_bytes)
      throw damaged_header(file, fmt::format("{} lies at bytes {} to {}", in_quotes(name), entry.begin, entry.end),
                           fmt::format("ascending places within the {} bytes of data", data_bytes));
    const auto bytes = dense_bytes(entry.dtype, entry.shape);
    if (!bytes || *bytes != entry.end - entry.begin)
      throw damaged_header(file,
                           fmt::format("{} is {} [{}] in {} bytes", in_quotes(name), to_string(entry.dtype),
                                       fmt::join(entry.shape, ", "), entry.end - entry.begin),
                           bytes ? fmt::format("{} bytes", *bytes) : "a shape whose size fits into 63 bits");
    places.push_back(&place);
  }
  std::ranges::sort(places, {}, [](const Place* place) { return std::pair(place->second.begin, place->second.end); });
  std::uint64_t reached = 0;
  for (const Place* place : places) {
    if (place->second.begin != reached)
      throw damaged_header(file, fmt::format("{} begins at byte {}", in_quotes(place->first), place->second.begin),
                           fmt::format("byte {}, where the tensor before it ends", reached));
    reached = place->second.end;
  }
  if (reached != data_bytes)
    throw damaged_header(file, fmt::format("{} bytes of data", data_bytes),
                         fmt::format("{}, the end of the last tensor", reached));
}

}  // namespace

std::string_view to_string(SafetensorsDtype dtype) { return dtype_rows.at(static_cast<std::size_t>(dtype)).name; }

std::uint64_t size_of(SafetensorsDtype dtype) { return dtype_rows.at(static_cast<std::size_t>(dtype)).bytes; }

std::optional<std::uint64_t> dense_bytes(SafetensorsDtype dtype, const std::vector<std::int64_t>& shape) {
  // An empty tensor needs no bytes, yet its strides are products of the other dimensions, so these have to fit as well.
  auto stretched = static_cast<std::int64_t>(size_of(dtype));
  bool empty = false;
  for (const std::int64_t dimension : shape) {
    empty = empty || dimension == 0;
    if (__builtin_mul_overflow(stretched, std::max<std::int64_t>(dimension, 1), &stretched)) return std::nullopt;
  }
  return empty ? 0 : static_cast<std::uint64_t>(stretched);
}

std::uint64_t safetensors_header_length(const std::array<unsigned char, safetensors_length_bytes>& first,
                                        std::uint64_t file_bytes, const std::string& file) {
  if (file_bytes < safetensors_length_bytes + 2)
    throw damaged_header(file, fmt::format("{} bytes", file_bytes), "at least 10, a length and a header");
  std::uint64_t length = 0;
  std::memcpy(&length, first.data(), sizeof(length));
  if (length < 2 || length > file_bytes - safetensors_length_bytes)
    throw damaged_header(file, fmt::format("a header of {} bytes", length),
                         fmt::format("2 to {}, what the file has room for", file_bytes - safetensors_length_bytes));
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes, const std::string& file) {
  if (!text.starts_with('{')) throw damaged_header(file, "a header that does not begin with '{'", "a JSON object");
  HeaderBuilder builder(file);
  const std::string problem = read_json(
      text, 3, [&](std::span<const std::string> keys, JsonEvent&& event) { builder.take(keys, std::move(event)); });
  if (!problem.empty()) throw damaged_header(file, "the header has " + problem, "a JSON object that describes tensors");
  SafetensorsHeader header = builder.take_header();
  check_places(header, data_bytes, file);
  return header;
}

std::string format_safetensors_header(const SafetensorsHeader& header, const std::vector<std::string>& order) {
  std::string text = "{";
  const auto separate = [&text] {
    if (text.size() > 1) text += ',';
  };
  if (!header.metadata.empty()) {
    std::vector<std::string> members;
    members.reserve(header.metadata.size());
    for (const auto& [key, value] : header.metadata) members.push_back(json_string(key) + ':' + json_string(value));
    text += fmt::format(R"("{}":{{{}}})", metadata_key, fmt::join(members, ","));
  }
  for (const std::string& name : order) {
    const SafetensorsEntry& entry = header.tensors.at(name);
    separate();
    text += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_string(name),
                        to_string(entry.dtype), fmt::join(entry.shape, ","), entry.begin, entry.end);
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  std::string beginning(safetensors_length_bytes, '\0');
  std::memcpy(beginning.data(), &length, sizeof(length));
  return beginning + text;
}

}  // namespace penstock
