#include "tokenizer/documents.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <string_view>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::size_t buffer_size = std::size_t{256} << 10U;
constexpr std::size_t longest_document = std::size_t{256} << 20U;

void append(std::string& content, std::string_view more, const std::string& place) {
  if (content.size() + more.size() > longest_document)
    throw bad_input(fmt::format("{} is longer than {} MiB", place, longest_document >> 20U), "shorter documents",
                    "cut it, or write its parts as lines of JSON");
  content += more;
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

DocumentReader::DocumentReader(std::vector<std::filesystem::path> files)
    : files_(std::move(files)), buffer_(buffer_size) {}

bool DocumentReader::has_lines(const std::filesystem::path& file) {
  const std::filesystem::path unpacked = file.extension() == ".gz" ? file.stem() : file;
  return unpacked.extension() == ".jsonl" || unpacked.extension() == ".ndjson";
}

std::string DocumentReader::place_of(const std::filesystem::path& file, std::int64_t line) {
  const std::string name = shortened(file.string(), 300);
  return line > 0 ? fmt::format("{} line {}", name, line) : name;
}

std::int64_t DocumentReader::bytes_read() const {
  return bytes_of_closed_ + (open_ ? static_cast<std::int64_t>(open_->bytes_read()) : 0);
}

std::string DocumentReader::place() const { return place_of(files_[next_file_ - 1], line_); }

bool DocumentReader::fill() {
  begin_ = 0;
  end_ = open_->read(buffer_);
  return end_ > 0;
}

bool DocumentReader::next_line(std::string& line) {
  line.clear();
  ++line_;
  bool has_any = false;
  while (begin_ < end_ || fill()) {
    has_any = true;
    const char* first = buffer_.data() + begin_;
    const void* line_end = std::memchr(first, '\n', end_ - begin_);
    const std::size_t size =
        line_end == nullptr ? end_ - begin_ : static_cast<std::size_t>(static_cast<const char*>(line_end) - first);
    append(line, {first, size}, place());
    begin_ += size;
    if (line_end != nullptr) {
      ++begin_;
      return true;
    }
  }
  return has_any;
}

void DocumentReader::read_whole(std::string& content) {
  while (fill()) append(content, {buffer_.data(), end_}, place());
  end_ = 0;
}

std::vector<RawDocument> DocumentReader::next(std::size_t enough) {
  std::vector<RawDocument> documents;
  std::size_t size = 0;
  while ((size < enough || documents.empty()) && (open_ || next_file_ < files_.size())) {
    if (!open_) {
      open_ = std::make_unique<DataFile>(files_[next_file_++]);
      line_ = 0;
    }
    const std::size_t file = next_file_ - 1;
    bool is_at_end = true;
    if (has_lines(files_[file])) {
      std::string line;
      is_at_end = !next_line(line);
      if (!is_at_end && !is_blank(line)) documents.push_back({std::move(line), file, line_});
    } else {
      documents.push_back({"", file, 0});
      read_whole(documents.back().content);
    }
    if (is_at_end) {
      bytes_of_closed_ += static_cast<std::int64_t>(open_->bytes_read());
      open_.reset();
    }
    // Many empty documents are work too.
    size += (documents.empty() ? 0 : documents.back().content.size()) + 1;
  }
  return documents;
}

}  // namespace penstock
