#include "penstock/monitoring/event_file.h"

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& what, const fs::path& path, int number) {
  throw run_failed(fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(number)),
                   "a place that can be written", "check the path, its permissions and the space left");
}

// Little-endian, whatever the machine.
template <class Number>
void append_number(std::string& out, Number number) {
  for (std::size_t byte = 0; byte < sizeof(Number); ++byte) out += static_cast<char>(number >> (8 * byte) & 0xff);
}

template <class Number>
Number read_number(std::string_view bytes) {
  Number number = 0;
  for (std::size_t byte = 0; byte < sizeof(Number); ++byte)
    number |= static_cast<Number>(static_cast<unsigned char>(bytes[byte])) << (8 * byte);
  return number;
}

// Protobuf's wire types.
enum class WireType : std::uint8_t { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

void append_varint(std::string& out, std::uint64_t number) {
  constexpr std::uint64_t more = 0x80;
  for (; number >= more; number >>= 7U) out += static_cast<char>(number | more);
  out += static_cast<char>(number);
}

void append_key(std::string& out, int field, WireType type) {
  append_varint(out, static_cast<std::uint64_t>(field) << 3U | static_cast<std::uint64_t>(type));
}

void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_key(out, field, WireType::Bytes);
  append_varint(out, bytes.size());
  out += bytes;
}

// The messages' fields: tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
constexpr int event_wall_time = 1;
constexpr int event_step = 2;
constexpr int event_file_version = 3;
constexpr int event_summary = 5;
constexpr int summary_value = 1;
constexpr int value_tag = 1;
constexpr int value_simple = 2;

std::string event_head(double seconds, std::int64_t step) {
  std::string event;
  append_key(event, event_wall_time, WireType::Fixed64);
  append_number(event, std::bit_cast<std::uint64_t>(seconds));
  append_key(event, event_step, WireType::Varint);
  append_varint(event, static_cast<std::uint64_t>(step));
  return event;
}

std::string tag_of(const Figure& figure) {
  return figure.rank ? fmt::format("{}/{}/rank_{}", figure.group, figure.name, *figure.rank)
                     : fmt::format("{}/{}", figure.group, figure.name);
}

// So that the sum of bytes that hold sums is none of them.
std::uint32_t masked_crc(std::string_view bytes) {
  constexpr std::uint32_t mask = 0xa282ead8;
  return std::rotr(crc32c(bytes), 15) + mask;
}

constexpr std::size_t length_bytes = 8;
constexpr std::size_t crc_bytes = 4;

std::string record_of(std::string_view data) {
  std::string record;
  append_number(record, std::uint64_t{data.size()});
  append_number(record, masked_crc(record));
  record += data;
  append_number(record, masked_crc(data));
  return record;
}

// The first record, or nothing where it is torn or damaged.
std::optional<std::string_view> first_record(std::string_view bytes) {
  constexpr std::size_t frame = length_bytes + 2 * crc_bytes;
  if (bytes.size() < frame) return std::nullopt;
  const auto length = read_number<std::uint64_t>(bytes);
  if (length > bytes.size() - frame) return std::nullopt;
  const std::string_view data = bytes.substr(length_bytes + crc_bytes, length);
  if (read_number<std::uint32_t>(bytes.substr(length_bytes)) != masked_crc(bytes.substr(0, length_bytes)) ||
      read_number<std::uint32_t>(bytes.substr(length_bytes + crc_bytes + length)) != masked_crc(data))
    return std::nullopt;
  return bytes.substr(0, frame + length);
}

// The step of an event that `event_head` began.
std::int64_t step_of_record(std::string_view record) {
  const std::string_view event = record.substr(length_bytes + crc_bytes);
  constexpr std::size_t step_begins = 10;  // behind two keys and the wall time
  std::uint64_t step = 0;
  for (unsigned shift = 0; shift < 64 && step_begins + shift / 7 < event.size(); shift += 7) {
    const auto byte = static_cast<unsigned char>(event[step_begins + shift / 7]);
    step |= std::uint64_t{byte & 0x7fU} << shift;
    if ((byte & 0x80U) == 0) break;
  }
  return static_cast<std::int64_t>(step);
}

std::string records_until(std::string_view bytes, std::int64_t last_step) {
  std::string kept;
  while (const auto record = first_record(bytes)) {
    if (step_of_record(*record) <= last_step) kept += *record;
    bytes.remove_prefix(record->size());
  }
  return kept;
}

}  // namespace

// A record of a step is a few hundred bytes: a table would be more code for no time that anyone sees.
std::uint32_t crc32c(std::string_view bytes) {
  constexpr std::uint32_t polynomial = 0x82f63b78;  // reflected
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? polynomial : 0);
  }
  return ~crc;
}

EventFile::EventFile(const fs::path& folder, std::int64_t last_step)
    // TensorBoard looks for "tfevents" in the name.
    : path_(folder / "events.out.tfevents.0.penstock") {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) refuse("make the folder", folder, failure.value());
  constexpr std::int64_t longest = std::int64_t{32} << 30;
  std::string kept = fs::exists(path_) ? records_until(read_file(path_, longest), last_step) : "";
  if (kept.empty()) {
    std::string event = event_head(0, 0);
    append_bytes(event, event_file_version, "brain.Event:2");
    kept = record_of(event);
  }
  write_file_atomically(path_, kept);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) refuse("open", path_, errno);
}

EventFile::~EventFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EventFile::add(std::int64_t step, double seconds, const std::vector<Figure>& figures) {
  std::string summary;
  for (const Figure& figure : figures) {
    std::string value;
    append_bytes(value, value_tag, tag_of(figure));
    append_key(value, value_simple, WireType::Fixed32);
    append_number(value, std::bit_cast<std::uint32_t>(static_cast<float>(figure.value)));
    append_bytes(summary, summary_value, value);
  }
  std::string event = event_head(seconds, step);
  append_bytes(event, event_summary, summary);
  const std::string record = record_of(event);
  for (std::size_t done = 0; done < record.size();) {
    const ssize_t written = ::write(descriptor_, record.data() + done, record.size() - done);
    if (written < 0 && errno != EINTR) refuse("write", path_, errno);
    if (written > 0) done += static_cast<std::size_t>(written);
  }
}

}  // namespace penstock
