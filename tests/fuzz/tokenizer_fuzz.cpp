// Any file to the reader of tokenizers; what it accepts must encode a text, and decode its tokens without a failure.
#include <string>

#include "penstock/tokenizer/tokenizer.h"

#include "memory_bound.h"
#include "read_input.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace penstock;
  const std::string text = text_of_input(data, size);
  const UnnamedFile file(text);
  refuse_in_one_line([&] {
    std::optional<Tokenizer> tokenizer;
    {
      const MemoryBound bound(text.size());
      tokenizer = load_tokenizer(file.path());
    }
    Encoder encoder(*tokenizer);
    const std::vector<TokenId> tokens =
        encoder.encode("The pipeline's 4 stages, na\xC3\xAFve \xE4\xB8\xAD\xFF <s>\n\n  end");
    for (const TokenId id : tokens)
      if (id >= tokenizer->vocabulary()) std::abort();
    static_cast<void>(tokenizer->decode(tokens));
  });
  return 0;
}
