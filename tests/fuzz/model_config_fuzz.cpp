// Any text to the readers of a published model's config.json and of its weights' index.
#include <string>

#include "penstock/models/config.h"

#include "memory_bound.h"
#include "models/index.h"
#include "read_input.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace penstock;
  const std::string text = text_of_input(data, size);
  refuse_in_one_line([&] {
    const MemoryBound bound(text.size());
    const ModelConfig model = parse_config(text, "model/config.json");
    check_decoder(model.decoder);
    for (std::int64_t block = 0; block < model.decoder.layers; ++block)
      if (window_of(model.decoder, block) < 0 || (has_experts(model.decoder, block) && !model.decoder.experts))
        std::abort();
    if (to_text(model.decoder).empty()) std::abort();
  });
  refuse_in_one_line([&] {
    const MemoryBound bound(text.size());
    for (const auto& [name, file] : parse_weight_index(text, "model/model.safetensors.index.json"))
      if (file.find('/') != std::string::npos || file.front() == '.') std::abort();
  });
  return 0;
}
