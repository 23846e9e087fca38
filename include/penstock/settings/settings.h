/// \file
/// Every setting of a training run, once: its name on the command line and in TOML, its default and its meaning.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace penstock {

/// The number of microbatches, or of ranks, that stands for "auto".
inline constexpr int automatic_count = -1;

/// The model of a run whose network a program brings (trainer.h).
inline constexpr const char* own_model = "own";

/// The settings of a training run, those of `penstock train`. Needs no libtorch. The defaults train a small GPT on one
/// device. The members stand in groups by their subject, which leaves some gaps between them in memory.
struct TrainSettings {  // NOLINT(clang-analyzer-optin.performance.Padding)
  // What is learned from.
  std::vector<std::string> data;
  std::string data_kind = "auto";
  double held_out = 0.1;
  std::int64_t context = 128;

  // The network.
  std::string model = "gpt";
  std::int64_t layers = 8;
  std::int64_t width = 128;
  std::int64_t heads = 4;
  double dropout = 0;
  bool tied_head = false;

  // How it is cut and scheduled.
  int stages = 1;
  int ranks = 0;
  std::string cut = "uniform";
  std::string schedule = "1f1b";
  int microbatches = 4;
  std::vector<std::string> devices;
  int threads_per_rank = 1;
  std::string recompute = "none";
  bool offload = false;
  std::string memory_limit;
  std::string plan;
  std::string boundary_dtype = "same";
  std::string cost;
  bool remeasure = false;
  double drift = 0.25;
  int replicas = 1;
  std::string gradient_bucket = "4MiB";
  int zero = 0;

  // How it is trained.
  std::int64_t batch = 32;
  std::int64_t steps = 300;
  std::string optimizer = "adamw";
  double learning_rate = 1e-3;
  std::int64_t warmup = 20;
  double final_learning_rate = 0.1;
  double weight_decay = 0.1;
  double momentum = 0.9;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip = 1;
  bool post_validation = false;
  std::string precision = "fp32";
  std::uint64_t seed = 1;

  // Where it runs.
  int processes = 1;
  int restarts = 0;
  bool elastic = false;
  double peer_timeout = 30;
  double join_timeout = 120;
  std::string listen;

  // What is kept and reported.
  std::string out;
  bool resume = false;
  bool from_the_beginning = false;
  std::int64_t eval_every = 100;
  std::int64_t eval_samples = 256;
  std::int64_t checkpoint_every = 100;
  int keep = 3;
  bool wait_for_checkpoints = false;
  bool timeline = false;
  bool check_finite = false;

  friend bool operator==(const TrainSettings&, const TrainSettings&) = default;
};

/// Which part of the settings one belongs to, for the headings of `--help` and of config.toml.
enum class SettingGroup { Data, Network, Pipeline, Training, Processes, Run };

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_data_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Data, "data", settings.data, "files or folders: text, token files (.bin), or IDX images and labels");
  visit(Data, "data-kind", settings.data_kind, "auto, text, tokens16, tokens32 or images");
  visit(Data, "held-out", settings.held_out, "share of the data kept for evaluation");
  visit(Data, "context", settings.context, "tokens that a sample holds (gpt)");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_network_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Network, "model", settings.model, "gpt, mlp or convnet");
  visit(Network, "layers", settings.layers, "blocks between the first and the last layer (mlp: hidden layers)");
  visit(Network, "width", settings.width, "features of a layer");
  visit(Network, "heads", settings.heads, "attention heads; must divide the width (gpt)");
  visit(Network, "dropout", settings.dropout, "probability of dropout, from 0 to below 1");
  visit(Network, "tied-head", settings.tied_head, "the head's weight is the embedding's (gpt)");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_pipeline_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Pipeline, "stages", settings.stages, "stages that the layers are cut into");
  visit(Pipeline, "ranks", settings.ranks,
        "devices or threads that the stages live on, or auto, which divides the cores between them; 0: as the schedule "
        "has "
        "them");
  visit(Pipeline, "cut", settings.cut, "uniform, parameters, auto, or the first layers of the later stages: 3,6,9");
  visit(Pipeline, "schedule", settings.schedule, "a name (penstock schedule list), a file (.csv), or auto");
  visit(Pipeline, "microbatches", settings.microbatches, "slices of the minibatch in flight together, or auto");
  visit(Pipeline, "devices", settings.devices, "devices of the ranks in turn, with commas between: cuda:0,cuda:1");
  visit(Pipeline, "threads-per-rank", settings.threads_per_rank,
        "1: the same bits on any number of stages; 0: the cores divided by the ranks");
  visit(Pipeline, "recompute", settings.recompute,
        "layers run again in the backward: none, full, selected, auto, or 1-4,7");
  visit(Pipeline, "offload", settings.offload, "keep the inputs of recomputed layers in the host's memory");
  visit(Pipeline, "memory-limit", settings.memory_limit,
        "most memory of each rank, such as 12GiB; a run that needs more fails");
  visit(Pipeline, "boundary-dtype", settings.boundary_dtype,
        "type of fp32 tensors between ranks: same, or bf16 (half the bytes; the numbers depend on the cut)");
  visit(Pipeline, "plan", settings.plan, "file that penstock plan wrote; flags win over it");
  visit(Pipeline, "cost", settings.cost,
        "file in which auto keeps the costs that it measures; empty: one in the cache");
  visit(Pipeline, "remeasure", settings.remeasure, "measure the layers anew, even if costs of them are kept");
  visit(Pipeline, "drift", settings.drift, "warn if a stage is slower or faster than planned by this share; 0: never");
  visit(Pipeline, "replicas", settings.replicas, "copies of the pipeline, which share the microbatches");
  visit(Pipeline, "gradient-bucket", settings.gradient_bucket, "largest message of gradients between replicas");
  visit(Pipeline, "zero", settings.zero,
        "1: each replica keeps a share of the optimizer's state (ZeRO-1); 0: all of it");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_training_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Training, "batch", settings.batch, "samples of a minibatch");
  visit(Training, "steps", settings.steps, "updates");
  visit(Training, "optimizer", settings.optimizer, "adamw or sgd");
  visit(Training, "learning-rate", settings.learning_rate, "highest learning rate");
  visit(Training, "warmup", settings.warmup, "steps in which the learning rate rises to its highest");
  visit(Training, "final-learning-rate", settings.final_learning_rate,
        "share of it that is left at the end of the cosine");
  visit(Training, "weight-decay", settings.weight_decay, "applies to matrices and kernels only");
  visit(Training, "momentum", settings.momentum, "momentum of sgd");
  visit(Training, "beta1", settings.beta1, "beta1 of adamw");
  visit(Training, "beta2", settings.beta2, "beta2 of adamw");
  visit(Training, "epsilon", settings.epsilon, "epsilon of adamw");
  visit(Training, "clip", settings.clip, "largest norm of the gradient over all stages; 0: none");
  visit(Training, "post-validation", settings.post_validation,
        "update before the norm is known, and take the update back if it must be clipped");
  visit(Training, "precision", settings.precision,
        "number type of the layers: fp32, bf16 or fp16; weights stay in fp32");
  visit(Training, "seed", settings.seed, "seed of the weights, the order of the data and dropout");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_processes_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Processes, "processes", settings.processes,
        "processes that share the ranks on this machine; 1: all ranks are threads");
  visit(Processes, "restarts", settings.restarts,
        "how often a run that lost a process may go on from its last checkpoint");
  visit(Processes, "elastic", settings.elastic, "go on with the processes that are left, cut again");
  visit(Processes, "peer-timeout", settings.peer_timeout, "seconds of silence after which a process counts as lost");
  visit(Processes, "join-timeout", settings.join_timeout, "seconds until all processes must have come");
  visit(Processes, "listen", settings.listen,
        "own address for other processes; empty: loopback, or towards MASTER_ADDR");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_run_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Run, "out", settings.out, "folder of the run: settings, metrics, checkpoints");
  visit(Run, "resume", settings.resume, "go on from the folder's last whole checkpoint");
  visit(Run, "from-the-beginning", settings.from_the_beginning,
        "with resume, where no checkpoint is whole: begin anew, and keep the damaged ones under other names");
  visit(Run, "eval-every", settings.eval_every, "steps between held-out evaluations; 0: only at the end");
  visit(Run, "eval-samples", settings.eval_samples, "held-out samples of an evaluation");
  visit(Run, "checkpoint-every", settings.checkpoint_every, "steps between checkpoints; 0: only at the end");
  visit(Run, "keep", settings.keep, "newest checkpoints that are kept");
  visit(Run, "wait-for-checkpoints", settings.wait_for_checkpoints,
        "write checkpoints between steps, not beside the next step");
  visit(Run, "timeline", settings.timeline, "draw the last step below its prediction: timeline.svg and .html");
  visit(Run, "check-finite", settings.check_finite, "name the layer that first returns infinity or NaN (slow)");
}

/// Calls `visit(group, name, value, meaning)` for every setting, in order. The name is that of the command line,
/// without its dashes, and of TOML. `Settings` is `TrainSettings` or `const TrainSettings`.
template <class Settings, class Visitor>
void visit_settings(Settings& settings, const Visitor& visit) {
  visit_data_settings(settings, visit);
  visit_network_settings(settings, visit);
  visit_pipeline_settings(settings, visit);
  visit_training_settings(settings, visit);
  visit_processes_settings(settings, visit);
  visit_run_settings(settings, visit);
}

/// Overwrites the settings that a TOML file names; the table `prediction` of a plan's file is passed over. \throws
/// Error (BadInput) that names file and line where it is not TOML, a key is unknown (with the nearest known one) or a
/// value is of the wrong type.
void apply_toml(TrainSettings& settings, const std::filesystem::path& file);

/// The settings as TOML, with their meanings as comments; `out`, `resume`, `from-the-beginning` and `remeasure`, which
/// belong to one start, are left out. `apply_toml` gives back equal settings.
[[nodiscard]] std::string to_toml(const TrainSettings& settings);

/// Whether ranks, schedule, cut, microbatches or recomputation are left to a plan.
[[nodiscard]] bool is_automatic(const TrainSettings& settings);

/// Checks what can be checked without data. \throws Error (BadInput)
void check_settings(const TrainSettings& settings);

/// Checks the same for a network that is only measured, for a plan: it needs no folder. \throws Error (BadInput)
void check_measured_settings(const TrainSettings& settings);

/// Checks the same without the settings of data and of built-in networks, for a network of `settings.layers` layers.
/// \throws Error (BadInput)
void check_run_settings(const TrainSettings& settings);

}  // namespace penstock
