// What a test that is written in Python asks of the library beside the command line.
//   model_probe logits FOLDER TOKENS OUTPUT   TOKENS: int64, rows of 16; OUTPUT: their logits as float32
//   model_probe order SIZE STEPS BATCH SEED   the samples of each step, a line each
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/data/order.h"
#include "penstock/models/decoder.h"
#include "penstock/models/weights.h"

namespace penstock {
namespace {

void write_logits(const std::string& folder, const std::string& tokens_file, const std::string& output) {
  constexpr std::int64_t length = 16;
  const ModelConfig model = read_config(folder);
  const ModelWeights weights(folder, model);
  const Network network =
      make_decoder(model.decoder, [&](std::int64_t layer, torch::nn::Module& module) { weights.fill(layer, module); });
  std::string bytes = read_file(tokens_file);
  const auto count = static_cast<std::int64_t>(bytes.size() / sizeof(std::int64_t));
  Tensors flow{at::from_blob(bytes.data(), {count / length, length}, at::kLong).clone()};
  const at::NoGradGuard no_graph;
  for (std::int64_t layer = 0; layer < std::ssize(network.layers); ++layer)
    flow = build_layer(network, layer, 0, at::kCPU).forward(flow);
  const at::Tensor logits = flow.front().contiguous();
  FileWriter writer(output);
  writer.write(logits.const_data_ptr(), logits.nbytes());
  writer.sync_and_close();
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() == 4 && arguments[0] == "logits") {
    write_logits(arguments[1], arguments[2], arguments[3]);
    return 0;
  }
  if (arguments.size() == 5 && arguments[0] == "order") {
    for (std::int64_t step = 0; step < std::stoll(arguments[2]); ++step)
      fmt::print("{}\n", fmt::join(samples_of_step(std::stoll(arguments[1]), step, std::stoll(arguments[3]),
                                                   std::stoull(arguments[4])),
                                   " "));
    return 0;
  }
  return 2;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  try {
    return penstock::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
