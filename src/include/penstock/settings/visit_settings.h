/// \file
/// Every setting of a training run, once: its group, its name on the command line and in TOML, and its meaning. Command
/// line, TOML, agreement between processes and tests go through this list, and none of them knows a setting by name.
#pragma once

#include "penstock/settings/settings.h"

namespace penstock {

/// Which part of the settings one belongs to, for the headings of `--help` and of config.toml.
enum class SettingGroup { Data, Model, Layout, Training, Processes, Output };

/// Its heading: "How it is cut and scheduled".
[[nodiscard]] const char* heading(SettingGroup group);

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_data_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Data, "data", settings.data.paths,
        "files or folders: text, token files (.bin), or IDX images and labels; several with a weight each are mixed: "
        "books.bin:0.7 code.bin:0.3");
  visit(Data, "data-kind", settings.data.kind, "auto, text, tokens16, tokens32 or images");
  visit(Data, "held-out", settings.data.held_out, "share of the data kept for evaluation");
  visit(Data, "context", settings.data.context, "tokens that a sample holds (gpt)");
  visit(Data, "documents", settings.data.documents,
        "of a published model: joined, or apart (attention within each, positions begin anew) or masked (they go on)");
  visit(Data, "field", settings.data.field, "in JSON Lines, for a published model: the member that holds the text");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_model_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Model, "model", settings.model.kind, "gpt, mlp or convnet, or the folder of a published model (config.json)");
  visit(Model, "from-scratch", settings.model.from_scratch,
        "take only the shape of a published model, with new weights");
  visit(Model, "layers", settings.model.layers, "blocks between the first and the last layer (mlp: hidden layers)");
  visit(Model, "width", settings.model.width, "features of a layer");
  visit(Model, "heads", settings.model.heads, "attention heads; must divide the width (gpt)");
  visit(Model, "dropout", settings.model.dropout, "probability of dropout, from 0 to below 1");
  visit(Model, "tied-head", settings.model.tied_head, "the head's weight is the embedding's (gpt)");
  visit(Model, "freeze", settings.model.freeze, "layers that stay as they are, such as 0-11; 0 is the embedding");
  visit(Model, "lora", settings.model.lora,
        "rank of the adapters that alone learn in a published model; 0: no adapters, all weights learn");
  visit(Model, "lora-alpha", settings.model.lora_alpha, "adapters are multiplied with this and divided by their rank");
  visit(Model, "lora-targets", settings.model.lora_targets,
        "matrices with adapters: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; of a gpt2 c_attn, "
        "c_proj, "
        "c_fc (by default c_attn)");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_layout_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Layout, "stages", settings.layout.stages,
        "stages that the layers are cut into; where the schedule is auto without ranks, the ranks to plan for");
  visit(Layout, "ranks", settings.layout.ranks,
        "devices or threads that the stages live on, or auto, which divides the cores between them; 0: as many as the "
        "schedule has");
  visit(Layout, "cut", settings.layout.cut,
        "uniform, parameters, auto, or the first layers of the later stages: 3,6,9");
  visit(Layout, "schedule", settings.layout.schedule, "a name (penstock schedule list), a file (.csv), or auto");
  visit(Layout, "microbatches", settings.layout.microbatches, "slices of the minibatch in flight together, or auto");
  visit(Layout, "devices", settings.layout.devices, "devices of the ranks in turn, with commas between: cuda:0,cuda:1");
  visit(Layout, "threads-per-rank", settings.layout.threads_per_rank,
        "1: the same bits on any number of stages; 0: the cores divided by the ranks");
  visit(Layout, "recompute", settings.layout.recompute,
        "layers run again in the backward: none, full, selected, auto, or 1-4,7");
  visit(Layout, "offload", settings.layout.offload, "keep the inputs of recomputed layers in the host's memory");
  visit(Layout, "memory-limit", settings.layout.memory_limit,
        "most memory of each rank, such as 12GiB; a run that needs more fails");
  visit(Layout, "boundary-dtype", settings.layout.boundary_dtype,
        "type of fp32 tensors between ranks: same, or bf16 (half the bytes; the numbers depend on the cut)");
  visit(Layout, "plan", settings.planning.plan, "file that penstock plan wrote; flags win over it");
  visit(Layout, "cost", settings.planning.cost,
        "file in which auto keeps the costs that it measures; empty: one in the cache");
  visit(Layout, "remeasure", settings.planning.remeasure, "measure the layers again, even if their costs were kept");
  visit(Layout, "drift", settings.planning.drift,
        "warn if a stage is slower or faster than planned by this share; 0: never");
  visit(Layout, "replicas", settings.layout.replicas, "copies of the pipeline, which share the microbatches");
  visit(Layout, "gradient-tree", settings.layout.gradient_tree,
        "runs of microbatches, a power of two, whose gradients are added along a tree: the same bits on any replicas");
  visit(Layout, "gradient-bucket", settings.layout.gradient_bucket, "largest message of gradients between replicas");
  visit(Layout, "zero", settings.layout.zero,
        "1: each replica keeps a share of the optimizer's state (ZeRO-1); 0: all of it");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_training_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Training, "batch", settings.training.batch, "samples of a minibatch");
  visit(Training, "steps", settings.training.steps, "updates");
  visit(Training, "optimizer", settings.training.optimizer, "adamw or sgd");
  visit(Training, "learning-rate", settings.training.learning_rate, "highest learning rate");
  visit(Training, "warmup", settings.training.warmup, "steps in which the learning rate rises to its highest");
  visit(Training, "final-learning-rate", settings.training.final_learning_rate,
        "share of the highest learning rate that is left at the end of the cosine");
  visit(Training, "weight-decay", settings.training.weight_decay, "applies to matrices and kernels only");
  visit(Training, "momentum", settings.training.momentum, "momentum of sgd");
  visit(Training, "beta1", settings.training.beta1, "beta1 of adamw");
  visit(Training, "beta2", settings.training.beta2, "beta2 of adamw");
  visit(Training, "epsilon", settings.training.epsilon, "epsilon of adamw");
  visit(Training, "clip", settings.training.clip, "largest norm of the gradient over all stages; 0: none");
  visit(Training, "post-validation", settings.training.post_validation,
        "true, false, or auto, by measurement: update before the norm is known; what must be clipped is taken back");
  visit(Training, "steps-in-flight", settings.training.steps_in_flight,
        "steps that may be on their way; 1: no rank begins one before all have ended the last");
  visit(Training, "precision", settings.training.precision, "number type that layers compute in: fp32, bf16 or fp16");
  visit(Training, "weights", settings.training.weights,
        "number type of the weights: fp32, or, with the precision bf16, bf16 beside copies in fp32 that are updated");
  visit(Training, "seed", settings.training.seed, "seed of the weights, the order of the data and dropout");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_processes_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Processes, "processes", settings.processes.count,
        "processes that share the ranks on this machine; 1: all ranks are threads");
  visit(Processes, "restarts", settings.processes.restarts,
        "how often a run that lost a process may go on from its last checkpoint");
  visit(Processes, "elastic", settings.processes.elastic, "go on with the processes that are left, cut again");
  visit(Processes, "peer-timeout", settings.processes.peer_timeout,
        "seconds of silence after which a process counts as lost");
  visit(Processes, "join-timeout", settings.processes.join_timeout,
        "seconds within which all processes must have come");
  visit(Processes, "listen", settings.processes.listen,
        "address at which other processes reach this one; empty: loopback, or the one towards MASTER_ADDR");
}

/// As `visit_settings`, for the settings of one group.
template <class Settings, class Visitor>
void visit_output_settings(Settings& settings, const Visitor& visit) {
  using enum SettingGroup;
  visit(Output, "out", settings.output.folder, "folder of the run: settings, metrics, checkpoints");
  visit(Output, "resume", settings.output.resume, "go on from the folder's last whole checkpoint");
  visit(Output, "from-the-beginning", settings.output.from_the_beginning,
        "with resume, where no checkpoint is whole: begin anew, and keep the damaged ones under other names");
  visit(Output, "eval-every", settings.output.eval_every, "steps between held-out evaluations; 0: only at the end");
  visit(Output, "eval-samples", settings.output.eval_samples, "held-out samples of an evaluation");
  visit(Output, "checkpoint-every", settings.output.checkpoint_every, "steps between checkpoints; 0: only at the end");
  visit(Output, "keep", settings.output.keep, "newest checkpoints that are kept");
  visit(Output, "wait-for-checkpoints", settings.output.wait_for_checkpoints,
        "write checkpoints between steps, not beside the next step");
  visit(Output, "timeline", settings.output.timeline,
        "draw the last step below its prediction: timeline.svg and .html");
  visit(Output, "check-finite", settings.output.check_finite,
        "name the layer that first returns infinity or NaN (slow)");
}

/// Calls `visit(group, name, value, meaning)` for every setting, in order. The name is that of the command line,
/// without its dashes, and of TOML. `Settings` is `TrainSettings` or `const TrainSettings`.
template <class Settings, class Visitor>
void visit_settings(Settings& settings, const Visitor& visit) {
  visit_data_settings(settings, visit);
  visit_model_settings(settings, visit);
  visit_layout_settings(settings, visit);
  visit_training_settings(settings, visit);
  visit_processes_settings(settings, visit);
  visit_output_settings(settings, visit);
}

}  // namespace penstock
