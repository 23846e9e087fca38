#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <string_view>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/list_files.h"
#include "penstock/data/dataset.h"

#include "data/byte_sequence.h"
#include "data/images.h"
#include "data/split.h"
#include "data/token_index.h"
#include "data/windows.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

void check_settings(const DataSettings& settings) {
  if (settings.kind == DataKind::Own)
    throw bad_input("files of a program's own kind", "text, tokens16, tokens32 or images", "use one of these");
  if (settings.paths.empty()) throw bad_input("no data", "at least one file or folder", "name it with `data`");
  if (settings.context < 1 || settings.context > std::numeric_limits<std::int32_t>::max())
    throw bad_input(fmt::format("a context of {}", settings.context),
                    fmt::format("1 to {} tokens", std::numeric_limits<std::int32_t>::max()), "change `context`");
  if (std::isnan(settings.held_out) || settings.held_out < 0 || settings.held_out >= 1)
    throw bad_input(fmt::format("a held-out share of {}", settings.held_out), "at least 0 and below 1",
                    "set it to 0.1, or to 0 for no held-out split");
}

DataKind guess_kind(const std::vector<fs::path>& files) {
  const auto is_binary = [](const fs::path& file) { return file.extension() == ".bin"; };
  const auto binaries = static_cast<std::size_t>(std::ranges::count_if(files, is_binary));
  if (binaries == files.size()) return indexed_kind(files, std::nullopt).value_or(DataKind::Tokens16);
  if (binaries > 0)
    throw bad_input(fmt::format("{} of tokens (.bin) among {}", counted(static_cast<std::int64_t>(binaries), "file"),
                                counted(std::ssize(files), "file")),
                    "files of one kind", "name them apart, or give the kind: text, tokens16, tokens32 or images");
  // If there are many files, only a few are opened for a look: IDX files come in twos.
  if (files.size() <= 2 && std::ranges::any_of(files, looks_like_idx)) return DataKind::Images;
  return DataKind::Text;
}

std::int64_t bytes_of_token(DataKind kind) {
  if (kind == DataKind::Tokens16) return 2;
  return kind == DataKind::Tokens32 ? 4 : 1;
}

void check_token_files(const std::vector<fs::path>& files, std::int64_t token_bytes) {
  for (const fs::path& file : files) {
    std::error_code unknown;  // opening the file gives the error
    const std::uintmax_t bytes = fs::file_size(file, unknown);
    if (!unknown && bytes % static_cast<std::uintmax_t>(token_bytes) != 0)
      throw bad_input(fmt::format("{} is {}", file.string(), counted(static_cast<std::int64_t>(bytes), "byte")),
                      fmt::format("a multiple of {}, the bytes of a token", token_bytes),
                      "give the kind that the file has, or write it again");
  }
}

void check_size(std::int64_t size, const DataSettings& settings, const char* unit) {
  const std::int64_t window = settings.context + 1;
  const std::string first = settings.paths.front().string() + (settings.paths.size() > 1 ? " and the other paths" : "");
  if (size == 0) throw bad_input(first + " is empty", "at least " + counted(window, unit), "use other data");
  if (size < window)
    throw bad_input(fmt::format("{} holds {}", first, counted(size, unit)),
                    fmt::format("at least {}, the context of {} and one more", window, settings.context),
                    fmt::format("use more data, or train with a `context` of at most {}", size - 1));
  if (settings.held_out > 0 && size < 2 * window)
    throw bad_input(fmt::format("{} holds {}", first, counted(size, unit)),
                    fmt::format("at least {}, a context of {} and one more for each of the two splits", 2 * window,
                                settings.context),
                    fmt::format("use more data, a `context` of at most {}, or no held-out split", size / 2 - 1));
}

Data open_tokens(const std::vector<fs::path>& files, DataKind kind, const DataSettings& settings) {
  const std::int64_t token_bytes = bytes_of_token(kind);
  if (kind != DataKind::Text) static_cast<void>(indexed_kind(files, kind));
  check_token_files(files, token_bytes);
  const auto tokens = std::make_shared<const ByteSequence>(files);
  const std::int64_t size = static_cast<std::int64_t>(tokens->size()) / token_bytes;
  check_size(size, settings, kind == DataKind::Text ? "byte" : "token");

  Data data;
  data.description.kind = kind;
  data.description.bytes_or_samples = size;
  data.description.vocabulary = 256;
  if (kind != DataKind::Text) {
    data.description.vocabulary = std::int64_t{largest_token(*tokens, token_bytes)} + 1;
    if (data.description.vocabulary > std::numeric_limits<std::int32_t>::max())
      throw bad_input(fmt::format("the token {} in {}", data.description.vocabulary - 1, files.front().string()),
                      "tokens below 2147483647", "the file holds no uint32 tokens: give the kind that it has");
  }
  Split split = split_windows(size, settings.context + 1, settings.held_out);
  data.train = std::make_shared<const WindowDataset>(tokens, token_bytes, std::move(split.train), settings.context);
  if (settings.held_out > 0)
    data.held_out =
        std::make_shared<const WindowDataset>(tokens, token_bytes, std::move(split.held_out), settings.context);
  return data;
}

}  // namespace

Data open_data(const DataSettings& settings) {
  check_settings(settings);
  const std::vector<fs::path> files = list_files(settings.paths);
  const DataKind kind = settings.kind ? *settings.kind : guess_kind(files);
  if (kind == DataKind::Images) return open_images(files, settings.held_out);
  return open_tokens(files, kind, settings);
}

}  // namespace penstock
