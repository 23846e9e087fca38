#include "penstock/plan/other_runtimes.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <system_error>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/settings/toml_text.h"

namespace penstock {
namespace {

// What none of them runs. Returns the samples of a microbatch.
std::int64_t check_parts(const Plan& plan, const std::string& runtime) {
  if (plan.replicas != 1)
    throw bad_input(fmt::format("a plan of {}", counted(plan.replicas, "replica")),
                    "one replica: what is exported is one pipeline", "plan with one");
  if (plan.gradient_tree != 0)
    throw bad_input("a plan with a gradient tree", fmt::format("none, as {} has none", runtime), "plan without one");
  if (plan.batch % plan.microbatches != 0)
    throw bad_input(fmt::format("a batch of {} in {}", plan.batch, counted(plan.microbatches, "microbatch")),
                    fmt::format("a number that divides the batch: {} needs microbatches of equal size", runtime),
                    "plan with such a number of microbatches");
  return plan.batch / plan.microbatches;
}

bool recomputes_all(const Plan& plan, const std::string& runtime) {
  const auto& stages = plan.recomputed;
  const bool any = std::any_of(stages.begin(), stages.end(), [](bool recomputed) { return recomputed; });
  if (any && !std::all_of(stages.begin(), stages.end(), [](bool recomputed) { return recomputed; }))
    throw bad_input("a plan that recomputes some of its stages", fmt::format("all or none, as {} does", runtime),
                    "plan with recomputation of all stages, or of none");
  return any;
}

std::int64_t end_of_stage(const Plan& plan, std::size_t stage) {
  return stage + 1 < plan.cut.size() ? plan.cut[stage + 1] : plan.layers;
}

void check_megatron_schedule(const Plan& plan) {
  const bool plain = plan.schedule == "1f1b" && plan.stages_per_rank == 1;
  if (!plain && plan.schedule != "interleaved-1f1b")
    throw bad_input(fmt::format("a plan with {}", plan.schedule), "1f1b or interleaved-1f1b, which Megatron runs",
                    "plan with one of these");
  if (plan.stages_per_rank > 1 && plan.microbatches % plan.ranks != 0)
    throw bad_input(fmt::format("{} on {}", counted(plan.microbatches, "microbatch"), counted(plan.ranks, "rank")),
                    "a multiple of the ranks, as Megatron's interleaved schedule needs",
                    "plan with such a number of microbatches");
}

// Whether the head has the embedding's weights.
bool ties_ends(const Plan& plan) {
  for (const LayerTie& tie : plan.ties)
    if (tie.owner.layer != 0 || tie.copy.layer != plan.layers - 1)
      throw bad_input(to_string(tie), "no ties but of the first and the last layer, as Megatron has them",
                      "untie the others");
  return !plan.ties.empty();
}

// "Et*3|t*4|t*3L"
std::string megatron_layout(const Plan& plan) {
  std::string layout;
  for (std::size_t stage = 0; stage < plan.cut.size(); ++stage) {
    const std::int64_t first = std::max<std::int64_t>(plan.cut[stage], 1);
    const std::int64_t count = std::min(end_of_stage(plan, stage), plan.layers - 1) - first;
    if (stage > 0) layout += '|';
    if (stage == 0) layout += 'E';
    if (count == 1) layout += 't';
    if (count > 1) fmt::format_to(std::back_inserter(layout), "t*{}", count);
    if (stage + 1 == plan.cut.size()) layout += 'L';
  }
  return layout;
}

bool are_modules(const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.starts_with("layers.") || name.starts_with("tok_embeddings");
  });
}

std::vector<std::string> modules_of_layer(const Plan& plan, const std::vector<std::string>& names, std::int64_t layer) {
  if (!are_modules(names)) {
    if (layer == 0) return {"tok_embeddings"};
    // Newer versions call the head so, older ones "output"; what a model does not have is passed over.
    if (layer == plan.layers - 1) return {"norm", "output", "lm_head"};
    return {fmt::format("layers.{}", layer - 1)};
  }
  std::vector<std::string> modules;
  const std::string& name = names.at(static_cast<std::size_t>(layer));
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('+', begin), name.size());
    modules.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return modules;
}

std::string modules_of_stages(const Plan& plan, const std::vector<std::string>& names) {
  std::string text = "[\n";
  for (std::size_t stage = 0; stage < plan.cut.size(); ++stage) {
    std::string listed;
    for (std::int64_t layer = plan.cut[stage]; layer < end_of_stage(plan, stage); ++layer)
      for (const std::string& module : modules_of_layer(plan, names, layer))
        fmt::format_to(std::back_inserter(listed), "{}{}", listed.empty() ? "" : ", ", toml_text(module));
    fmt::format_to(std::back_inserter(text), "  [{}],\n", listed);
  }
  return text + "]";
}

// By the name of a schedule torchtitan decides which stages a rank builds; the passes are the file's.
std::string torchtitan_schedule(const Plan& plan) {
  const Placement placement = schedule_of(plan)->placement;
  if (placement == loop_placement(plan.ranks, plan.stages()))
    return plan.stages_per_rank == 1 ? "PipelineScheduleSingle" : "PipelineScheduleMulti";
  if (plan.stages_per_rank == 2 && placement == v_placement(plan.ranks)) return "ZBVZeroBubble";
  throw bad_input(fmt::format("a plan with {}", plan.schedule), "stages in a loop or a V, as torchtitan builds them",
                  "plan with another schedule, such as 1f1b, interleaved-1f1b or zb-v");
}

}  // namespace

std::string to_megatron(const Plan& plan) {
  const std::int64_t samples = check_parts(plan, "Megatron");
  check_megatron_schedule(plan);
  if (plan.layers < 2)
    throw bad_input("a plan for one layer", "an embedding and a head at least", "measure the network's layers");
  std::string text = fmt::format(
      "--num-layers {}\n--pipeline-model-parallel-size {}\n--pipeline-model-parallel-layout {}\n"
      "--micro-batch-size {}\n--global-batch-size {}\n",
      plan.layers - 2, plan.ranks, megatron_layout(plan), samples, plan.batch);
  if (!ties_ends(plan)) text += "--untie-embeddings-and-output-weights\n";
  if (recomputes_all(plan, "Megatron"))
    text += "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1\n";
  return text;
}

std::string to_torchtitan(const Plan& plan, const std::vector<std::string>& layer_names,
                          std::string_view schedule_file) {
  const std::int64_t samples = check_parts(plan, "torchtitan");
  if (!plan.ties.empty())
    throw bad_input(to_string(plan.ties.front()), "no tied parameters: torchtitan builds each stage from a copy",
                    "untie them");
  if (!layer_names.empty() && std::ssize(layer_names) != plan.layers)
    throw bad_input(counted(std::ssize(layer_names), "name"), fmt::format("{}, one for each layer", plan.layers),
                    "give the names of the layers that were planned for");
  return fmt::format(
      "[training]\nlocal_batch_size = {}\n\n[parallelism]\npipeline_parallel_degree = {}\n"
      "pipeline_parallel_schedule = \"{}\"\npipeline_parallel_schedule_csv = {}\n"
      "pipeline_parallel_microbatch_size = {}\nmodule_fqns_per_model_part = {}\n\n"
      "[activation_checkpoint]\nmode = \"{}\"\n",
      plan.batch, plan.ranks, torchtitan_schedule(plan), toml_text(std::string(schedule_file)), samples,
      modules_of_stages(plan, layer_names), recomputes_all(plan, "torchtitan") ? "full" : "none");
}

void save_for_torchtitan(const Plan& plan, const std::vector<std::string>& layer_names,
                         const std::filesystem::path& folder) {
  const std::filesystem::path schedule = folder / "schedule.csv";
  const std::string text = to_torchtitan(plan, layer_names, schedule.string());
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem)
    throw run_failed(fmt::format("cannot make the folder {}: {}", shortened(folder.string()), problem.message()),
                     "a place that can be written", "check the path and its permissions");
  write_file_atomically(schedule, to_csv(schedule_of(plan).get()));
  write_file_atomically(folder / "torchtitan.toml", text);
}

}  // namespace penstock
