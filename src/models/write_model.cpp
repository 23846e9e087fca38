#include "penstock/models/write_model.h"

#include <array>
#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "models/adapters.h"
#include "models/index.h"
#include "models/published_tensors.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr const char* adapter_file = "adapter_model.safetensors";

// config.json comes last: where it is, the others are.
constexpr std::array carried_files{"generation_config.json",
                                   "tokenizer.json",
                                   "tokenizer_config.json",
                                   "special_tokens_map.json",
                                   "added_tokens.json",
                                   "vocab.json",
                                   "merges.txt",
                                   "tokenizer.model",
                                   "chat_template.jinja",
                                   config_file};

// Tensors that follow each other, in files of their own.
struct Shards {
  std::vector<std::vector<PublishedTensor>> files;
  Bytes bytes;
};

struct TypeOfWeights {
  at::ScalarType type;
  const char* word;  // of config.json
};

TypeOfWeights type_of(Precision precision) {
  switch (precision) {
    case Precision::BFloat16:
      return {at::kBFloat16, "bfloat16"};
    case Precision::Float16:
      return {at::kHalf, "float16"};
    case Precision::Float32:
      break;
  }
  return {at::kFloat, "float32"};
}

std::int64_t bytes_of(const PublishedTensor& tensor, at::ScalarType type) {
  auto bytes = static_cast<std::int64_t>(c10::elementSize(type));
  for (const std::int64_t size : tensor.shape) bytes *= size;
  return bytes;
}

Shards divided(std::vector<PublishedTensor> tensors, at::ScalarType type, Bytes most) {
  Shards shards;
  std::int64_t in_file = 0;
  for (PublishedTensor& tensor : tensors) {
    const std::int64_t bytes = bytes_of(tensor, type);
    if (shards.files.empty() || in_file + bytes > most.count) {
      shards.files.emplace_back();
      in_file = 0;
    }
    in_file += bytes;
    shards.bytes.count += bytes;
    shards.files.back().push_back(std::move(tensor));
  }
  return shards;
}

// Parameters of a checkpoint, the last one kept: those of the model that lie in it follow each other.
class Sources {
 public:
  explicit Sources(const CheckpointReader& reader) : reader_(reader) {}

  const at::Tensor& read(const std::string& name) {
    if (name != name_) {
      tensor_.reset();
      tensor_ = reader_.read(name);
      name_ = name;
    }
    return tensor_;
  }

 private:
  const CheckpointReader& reader_;
  std::string name_;
  at::Tensor tensor_;
};

// What adapters add to a matrix.
class Additions {
 public:
  Additions(const ModelConfig& model, const CheckpointReader& reader) : reader_(reader) {
    if (model.decoder.lora) scale_ = model.decoder.lora->alpha / static_cast<double>(model.decoder.lora->rank);
    for (PublishedAdapter& adapter : published_adapters(model))
      adapters_.emplace(adapter.module + ".weight", std::move(adapter));
  }

  [[nodiscard]] at::Tensor added(const std::string& name, const at::Tensor& part) const {
    const auto found = adapters_.find(name);
    if (found == adapters_.end()) return part;
    const PublishedAdapter& adapter = found->second;
    const at::Tensor added = at::mm(reader_.read(adapter.source + "_b"), reader_.read(adapter.source + "_a")) * scale_;
    return part + (adapter.transposed ? added.t() : added);
  }

 private:
  const CheckpointReader& reader_;
  std::map<std::string, PublishedAdapter> adapters_;
  double scale_ = 0;
};

void write_weights(const fs::path& folder, const Shards& shards, const ModelConfig& model,
                   const CheckpointReader& reader, at::ScalarType type) {
  Sources sources(reader);
  const Additions additions(model, reader);
  nlohmann::ordered_json places = nlohmann::ordered_json::object();
  const std::size_t files = shards.files.size();
  for (std::size_t file = 0; file < files; ++file) {
    const std::string name =
        files == 1 ? std::string(single_file) : fmt::format("model-{:05}-of-{:05}.safetensors", file + 1, files);
    std::vector<TensorToWrite> forms;
    for (const PublishedTensor& tensor : shards.files[file]) {
      forms.push_back({tensor.name, {type, tensor.shape}});
      places[tensor.name] = name;
    }
    const auto make = [&](std::size_t place) {
      const PublishedTensor& tensor = shards.files[file][place];
      return additions.added(tensor.name, published_part(tensor, sources.read(tensor.source))).to(type);
    };
    write_safetensors_one_by_one(folder / name, forms, make, {{"format", "pt"}});
  }
  if (files == 1) return;
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", shards.bytes.count}}}, {"weight_map", places}};
  write_file_atomically(folder / index_file, index.dump(2) + "\n");
}

// In a mixture of experts PEFT takes the words of a feed-forward part for the experts' own matrices, which have no
// adapters: those of the dense blocks are named in full, as parameters.
void name_dense_targets(nlohmann::ordered_json& config, const ModelConfig& model) {
  auto modules = nlohmann::ordered_json::array();
  auto parameters = nlohmann::ordered_json::array();
  for (const std::string& target : model.decoder.lora->targets)
    if (!is_feed_forward_target(target)) modules.push_back(target);
  for (const PublishedAdapter& adapter : published_adapters(model))
    if (is_feed_forward_target(adapter.module.substr(adapter.module.rfind('.') + 1)))
      parameters.push_back(adapter.module + ".weight");
  config["target_modules"] = modules;
  if (!parameters.empty()) config["target_parameters"] = parameters;
}

void write_config(const fs::path& folder, const char* type) {
  const fs::path file = folder / config_file;
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(read_file(file));
  config[config.contains("torch_dtype") ? "torch_dtype" : "dtype"] = type;
  write_file_atomically(file, config.dump(2) + "\n");
}

}  // namespace

WrittenModel write_model(const fs::path& folder, const ModelConfig& model, const fs::path& model_files,
                         const CheckpointReader& reader, Precision precision, Bytes max_shard_size) {
  if (max_shard_size.count < 1)
    throw bad_input(fmt::format("`max_shard_size` is {}", to_string(max_shard_size)), "at least a byte",
                    "raise `max_shard_size`");
  const TypeOfWeights type = type_of(precision);
  std::vector<PublishedTensor> tensors = published_tensors(model);
  const std::int64_t count = std::ssize(tensors);
  const Shards shards = divided(std::move(tensors), type.type, max_shard_size);
  carry_model_files(model_files, folder);
  write_config(folder, type.word);
  write_weights(folder, shards, model, reader, type.type);
  return {count, std::ssize(shards.files), shards.bytes};
}

WrittenModel write_adapters(const fs::path& folder, const ModelConfig& model, const std::string& base,
                            const CheckpointReader& reader, Precision precision) {
  const TypeOfWeights type = type_of(precision);
  const LoraSettings& lora = model.decoder.lora.value();
  const bool is_gpt2 = model.family == ModelFamily::Gpt2;  // whose matrices are [in, out]
  std::vector<TensorToWrite> forms;
  std::vector<std::string> sources;
  // "base_model.model." stands before all names of PEFT.
  for (const PublishedAdapter& adapter : published_adapters(model)) {
    forms.push_back(
        {fmt::format("base_model.model.{}.lora_A.weight", adapter.module), {type.type, {lora.rank, adapter.in}}});
    sources.push_back(adapter.source + "_a");
    forms.push_back(
        {fmt::format("base_model.model.{}.lora_B.weight", adapter.module), {type.type, {adapter.out, lora.rank}}});
    sources.push_back(adapter.source + "_b");
  }
  write_safetensors_one_by_one(folder / adapter_file, forms,
                               [&](std::size_t place) { return reader.read(sources[place]).to(type.type); },
                               {{"format", "pt"}});
  nlohmann::ordered_json config = {
      {"base_model_name_or_path", base}, {"bias", "none"},           {"fan_in_fan_out", is_gpt2},
      {"inference_mode", true},          {"lora_alpha", lora.alpha}, {"lora_dropout", 0.0},
      {"modules_to_save", nullptr},      {"peft_type", "LORA"},      {"r", lora.rank},
      {"target_modules", lora.targets},  {"task_type", "CAUSAL_LM"}};
  if (model.decoder.experts) name_dense_targets(config, model);
  write_file_atomically(folder / "adapter_config.json", config.dump(2) + "\n");
  return {std::ssize(forms), 1, Bytes{static_cast<std::int64_t>(fs::file_size(folder / adapter_file))}};
}

void carry_model_files(const fs::path& from, const fs::path& to) {
  std::error_code failure;
  fs::create_directories(to, failure);
  if (failure)
    throw run_failed(fmt::format("cannot make the folder {}: {}", to.string(), failure.message()),
                     "a folder that can be made", "check its permissions and the space left");
  for (const char* name : carried_files)
    if (fs::exists(from / name, failure)) write_file_atomically(to / name, read_file(from / name));
}

}  // namespace penstock
