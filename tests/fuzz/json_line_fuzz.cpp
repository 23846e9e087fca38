// Any bytes to the reader of a document on a line of JSON.
#include <string>

#include "memory_bound.h"
#include "read_input.h"
#include "tokenizer/json_line.h"
#include "tokenizer/unicode.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace penstock;
  const std::string line = text_of_input(data, size);
  refuse_in_one_line([&] {
    std::string document;
    {
      const MemoryBound bound(line.size());
      document = text_of_json_line(line, "text", "a.jsonl line 1");
    }
    if (!is_valid_utf8(document)) std::abort();
  });
  return 0;
}
