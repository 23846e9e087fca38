// A tokenizer without libtorch, for tests and benchmarks that compare with the Python package.
//
// tokenizer_tool TOKENIZER encode [plain] [as-text]   texts into tokens; without special tokens around; or read in the
// text tokenizer_tool TOKENIZER decode [plain]             tokens into texts; special tokens too tokenizer_tool
// TOKENIZER time                       seconds in which one thread encodes all texts
//
// A text is its size as uint32 and its bytes, tokens are their number as uint32 and each as uint32.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <span>
#include <string>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/types.h"
#include "penstock/tokenizer/tokenizer.h"

namespace {

bool read_exactly(void* into, std::size_t size) { return std::fread(into, 1, size, stdin) == size; }

template <class Element, class List>
bool read_list(List& list) {
  std::uint32_t count = 0;
  if (!read_exactly(&count, sizeof(count))) return false;
  list.resize(count);
  return read_exactly(list.data(), count * sizeof(Element));
}

template <class List>
void write_list(const List& list) {
  const auto count = static_cast<std::uint32_t>(list.size());
  std::fwrite(&count, sizeof(count), 1, stdout);
  std::fwrite(list.data(), sizeof(list[0]), list.size(), stdout);
  std::fflush(stdout);
}

int run(std::span<char*> arguments) {
  const penstock::Tokenizer tokenizer = penstock::load_tokenizer(arguments[0]);
  const std::string command = arguments[1];
  const auto has = [&](const char* word) {
    return std::any_of(arguments.begin() + 2, arguments.end(),
                       [&](char* given) { return std::strcmp(given, word) == 0; });
  };
  penstock::Encoder encoder(tokenizer);
  const penstock::EncodeOptions options{!has("plain"), !has("as-text")};
  std::string text;
  if (command == "decode") {
    for (std::vector<penstock::TokenId> tokens; read_list<penstock::TokenId>(tokens);)
      write_list(tokenizer.decode(tokens, !has("plain")));
  } else if (command == "encode") {
    while (read_list<char>(text)) write_list(encoder.encode(text, options));
  } else {
    std::vector<std::string> texts;
    while (read_list<char>(text)) texts.push_back(text);
    const penstock::SteadyClock clock;
    const auto begun = clock.now();
    std::size_t tokens = 0;
    for (const std::string& each : texts) tokens += encoder.encode(each, options).size();
    fmt::print("{} {}\n", (clock.now() - begun).count / 1000, tokens);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    return run(std::span(argv, static_cast<std::size_t>(argc)).subspan(1));
  } catch (const penstock::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return error.kind() == penstock::ErrorKind::BadInput ? 2 : 1;
  }
}
