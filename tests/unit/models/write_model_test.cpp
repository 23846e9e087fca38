// What is written of a model is what is read again, to the bit.
#include "penstock/models/write_model.h"

#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/models/decoder.h"
#include "penstock/models/weights.h"

namespace penstock::write_model_test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Parameters = std::map<std::string, at::Tensor>;

class WriteModel : public testing::Test {
 protected:
  WriteModel() : folder_(fs::path(testing::TempDir()) / ("write_model_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "published");
    write_file_atomically(folder_ / "published" / "config.json",
                          R"({"model_type": "llama", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 12,
                              "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2,
                              "max_position_embeddings": 16, "tie_word_embeddings": true, "torch_dtype": "float16"})");
    write_file_atomically(folder_ / "published" / "tokenizer.json", "{}");
    model_ = read_config(folder_ / "published");
  }
  ~WriteModel() override { fs::remove_all(folder_); }

  // Another network each time, its weights drawn from the seed.
  [[nodiscard]] static std::vector<Layer> built(const ModelConfig& model, std::uint64_t seed,
                                                const FillLayer& fill = {}) {
    at::manual_seed(seed);
    std::vector<Layer> layers;
    for (const LayerSpec& layer : make_decoder(model.decoder, fill).layers) layers.push_back(layer.build());
    return layers;
  }
  [[nodiscard]] static Parameters parameters_of(const std::vector<Layer>& layers) {
    Parameters parameters;
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      for (const auto& parameter : layers[layer].module().named_parameters())
        parameters.emplace(fmt::format("layers.{}.{}", layer, parameter.key()), parameter.value().detach());
    return parameters;
  }
  // A checkpoint of one stage. What is tied is kept with its owner's name alone.
  [[nodiscard]] CheckpointReader saved(const Parameters& parameters) const {
    CheckpointWriter writer(folder_ / "checkpoints", 1);
    std::vector<NamedTensor> tensors;
    tensors.reserve(parameters.size());
    for (const auto& [name, tensor] : parameters) tensors.push_back({name, tensor});
    writer.own_part().write_stage({0}, tensors);
    writer.commit("{}");
    return CheckpointReader(whole_checkpoints(folder_ / "checkpoints").front());
  }
  // As the folder has them, in a network of other weights.
  [[nodiscard]] Parameters read_again(const fs::path& folder) const {
    const ModelWeights weights(folder, model_);
    const std::vector<Layer> layers = built(model_, 9);
    const at::NoGradGuard no_graph;
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      weights.fill(static_cast<std::int64_t>(layer), layers[layer].module());
    return parameters_of(layers);
  }
  [[nodiscard]] fs::path new_folder(const std::string& name) const {
    fs::create_directories(folder_ / name);
    return folder_ / name;
  }

  fs::path folder_;
  ModelConfig model_;
};

// But for the head, which is the embedding.
void expect_same(const Parameters& is, const Parameters& should, double most = 0) {
  ASSERT_EQ(is.size(), should.size());
  for (const auto& [name, tensor] : should)
    if (!name.ends_with("output.weight")) {
      EXPECT_LE((is.at(name) - tensor).abs().max().item<double>(), most) << name;
    }
}

TEST_F(WriteModel, WhatIsWrittenInSeveralFilesIsReadAgainToTheBit) {
  const Parameters parameters = parameters_of(built(model_, 1));
  const CheckpointReader reader = saved(parameters);
  const fs::path output = new_folder("output");
  const WrittenModel written =
      write_model(output, model_, folder_ / "published", reader, Precision::Float32, Bytes{1000});
  EXPECT_GT(written.files, 1);
  EXPECT_TRUE(fs::exists(output / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(output / "tokenizer.json"));
  EXPECT_EQ(read_config(output), model_);
  EXPECT_THAT(read_file(output / "config.json"), HasSubstr("\"torch_dtype\": \"float32\""));
  expect_same(read_again(output), parameters);
  const WrittenModel whole =
      write_model(new_folder("whole"), model_, folder_ / "published", reader, Precision::Float32, Bytes{1 << 20});
  EXPECT_EQ(whole, (WrittenModel{written.tensors, 1, written.bytes}));
  EXPECT_FALSE(fs::exists(folder_ / "whole" / "model.safetensors.index.json"));
  expect_same(read_again(folder_ / "whole"), parameters);
}

TEST_F(WriteModel, HalfPrecisionTakesHalfTheBytes) {
  const Parameters parameters = parameters_of(built(model_, 1));
  const CheckpointReader reader = saved(parameters);
  const WrittenModel whole =
      write_model(new_folder("whole"), model_, folder_ / "published", reader, Precision::Float32, Bytes{1 << 20});
  const WrittenModel half =
      write_model(new_folder("half"), model_, folder_ / "published", reader, Precision::BFloat16, Bytes{1 << 20});
  EXPECT_EQ(2 * half.bytes.count, whole.bytes.count);
  EXPECT_THAT(read_file(folder_ / "half" / "config.json"), HasSubstr("\"torch_dtype\": \"bfloat16\""));
  expect_same(read_again(folder_ / "half"), parameters, 0.01);
}

TEST_F(WriteModel, AdaptersAreAddedToWhatTheyAdapt) {
  ModelConfig adapted = model_;
  adapted.decoder.lora = LoraSettings{2, 6, {"q_proj", "down_proj"}};
  Parameters parameters = parameters_of(built(adapted, 1));
  for (auto& [name, tensor] : parameters)
    if (name.find("_lora_") != std::string::npos) tensor = at::randn_like(tensor);
  const CheckpointReader reader = saved(parameters);
  static_cast<void>(
      write_model(new_folder("merged"), adapted, folder_ / "published", reader, Precision::Float32, Bytes{1 << 20}));
  const Parameters merged = read_again(folder_ / "merged");
  const std::string down = "layers.1.feed_forward.projection";
  const at::Tensor sum =
      parameters.at(down + ".weight") +
      at::mm(parameters.at(down + ".down_proj_lora_b"), parameters.at(down + ".down_proj_lora_a")) * 3.0;
  EXPECT_TRUE(at::equal(merged.at(down + ".weight"), sum));
  EXPECT_TRUE(
      at::equal(merged.at("layers.1.feed_forward.widen.weight"), parameters.at("layers.1.feed_forward.widen.weight")));

  const fs::path alone = new_folder("alone");
  const WrittenModel written = write_adapters(alone, adapted, "the base", reader, Precision::Float32);
  EXPECT_EQ(written.tensors, 2 * 2 * 2);
  EXPECT_THAT(read_file(alone / "adapter_config.json"), HasSubstr("\"base_model_name_or_path\": \"the base\""));
  const SafetensorsFile file = SafetensorsFile::open(alone / "adapter_model.safetensors");
  EXPECT_TRUE(at::equal(file.read("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"),
                        parameters.at(down + ".down_proj_lora_a")));
}

TEST_F(WriteModel, ACheckpointOfAnotherModelIsRefused) {
  Parameters parameters = parameters_of(built(model_, 1));
  parameters.erase("layers.2.attention.projection.weight");
  const CheckpointReader reader = saved(parameters);
  const fs::path output = new_folder("output");
  EXPECT_THAT([&] { write_model(output, model_, folder_ / "published", reader, Precision::Float32, Bytes{1 << 20}); },
              ThrowsMessage<Error>(HasSubstr("layers.2.attention.projection.weight")));
  EXPECT_THAT([&] { write_model(output, model_, folder_ / "published", reader, Precision::Float32, Bytes{0}); },
              ThrowsMessage<Error>(HasSubstr("`max_shard_size`")));
}

}  // namespace
}  // namespace penstock::write_model_test
