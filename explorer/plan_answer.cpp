#include "plan_answer.h"

#include <filesystem>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/plan/plan.h"

namespace penstock::explorer {
namespace {

/// A folder that is taken away at the end: plans are read from files, and what stands beside them too.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / "penstock-explorer") {
    std::filesystem::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  void write(const char* name, const std::string& text) const {
    FileWriter file(path_ / name);
    file.write(text.data(), text.size());
    file.sync_and_close();
  }
  [[nodiscard]] std::filesystem::path file(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

Cost cost_of_passes(const Plan& plan) {
  Cost cost;
  for (const Milliseconds pass : plan.prediction.stage_passes) {
    StageCost stage;
    stage.forward = stage.input_backward = stage.weight_backward = pass * (1.0 / 3);
    cost.stages.push_back(stage);
  }
  if (cost.stages.size() != plan.cut.size())
    throw bad_input("plan.toml without the times of its stages", "stage-ms, one for each stage",
                    "write the plan anew with penstock plan -o, or give its cost.json too");
  return cost;
}

Json prediction_of(const Plan& plan) {
  return {{"step", fmt::format("{:.6g} ms", plan.prediction.step.count)},
          {"pipeline", fmt::format("{:.6g} ms", plan.prediction.pipeline.count)},
          {"computing", fmt::format("{:.1f} %", plan.prediction.utilisation * 100)}};
}

}  // namespace

Json answer_to_plan(const Json& request) {
  const Folder folder;
  folder.write("plan.toml", read_text(request, "plan").value_or(""));
  if (const auto csv = read_text(request, "plan_schedule")) folder.write("plan.csv", *csv);
  Plan plan;
  try {
    plan = load_plan(folder.file("plan.toml"));
  } catch (const Error& error) {
    // The reader of the message knows the file by the name that it was dropped by.
    std::string message = error.what();
    const std::string path = folder.file("").string();
    for (auto at = message.find(path); at != std::string::npos; at = message.find(path)) message.erase(at, path.size());
    throw Error(error.kind(), message);
  }
  const VerifiedSchedule schedule = schedule_of(plan);
  check_passes(schedule->ranks(), std::max(1, plan.stages_per_rank), plan.microbatches);
  Json notes = Json::array();
  const auto layers = read_text(request, "layers");
  const Cost cost = layers ? cost_of(plan, parse_layer_costs(*layers, "cost.json")) : cost_of_passes(plan);
  if (!layers)
    notes.push_back(
        "The plan says what a microbatch takes on each stage, and not its parts: here a third is forward, and links "
        "are "
        "free. Drop its cost.json together with it for the step as it was planned.");
  return {{"ranks", plan.ranks},
          {"batch", plan.batch},
          {"microbatches", plan.microbatches},
          {"schedule", plan.schedule},
          {"stages", plan.stages()},
          {"csv", to_csv(schedule.get())},
          {"cost", to_json(cost)},
          {"prediction", prediction_of(plan)},
          {"notes", notes}};
}

}  // namespace penstock::explorer
