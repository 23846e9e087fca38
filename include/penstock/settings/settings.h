/// \file
/// Every setting of a training run, once: its name on the command line and in TOML, its default and its meaning.
///
///     penstock::TrainSettings settings;
///     settings.layout.stages = 4;
///     settings.layout.cut = "3,6,9";                // or penstock::automatic
///     settings.layout.schedule = "zb-v";
///     settings.training.precision = penstock::Precision::BFloat16;
///
/// The layout is a value; a plan is one way to make it.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// Left to a plan: the layers are measured, and what makes a step fastest is taken. As text "auto".
struct Automatic {
  friend bool operator==(const Automatic&, const Automatic&) = default;
};
inline constexpr Automatic automatic{};

/// Which kind of network a run trains.
enum class ModelKind : std::uint8_t {
  Gpt,
  Mlp,
  Convnet,
  Own,        ///< one that a program brings (trainer.h)
  Published,  ///< that of a published model's folder, with its weights
};

/// The words of kinds of networks.
template <>
struct KindWords<ModelKind> {
  static constexpr std::array<KindWord<ModelKind>, 5> all{{{ModelKind::Gpt, "gpt"},
                                                           {ModelKind::Mlp, "mlp"},
                                                           {ModelKind::Convnet, "convnet"},
                                                           {ModelKind::Own, "own", /*offered=*/false},
                                                           {ModelKind::Published, "published", /*offered=*/false}}};
};

/// Which network a run trains: one of the kinds by its word, or a published model by its folder.
class ModelChoice {
 public:
  /// A GPT.
  ModelChoice() = default;
  /// \param kind any but `Published`, which the path of its folder makes.
  ModelChoice(ModelKind kind);
  /// A word, or else the path of a folder: one that is there, or that has a slash in it. What the folder holds is
  /// checked when it is read. \throws Error (BadInput) for anything else.
  ModelChoice(const std::string& text);
  ModelChoice(const char* text) : ModelChoice(std::string(text)) {}

  [[nodiscard]] ModelKind kind() const { return kind_; }
  operator ModelKind() const { return kind_; }  // NOLINT(google-explicit-constructor,hicpp-explicit-conversions)
  /// Of `Published`; otherwise empty.
  [[nodiscard]] const std::string& folder() const { return folder_; }

  friend bool operator==(const ModelChoice&, const ModelChoice&) = default;
  friend bool operator==(const ModelChoice& choice, ModelKind kind) { return choice.kind_ == kind; }

 private:
  ModelKind kind_ = ModelKind::Gpt;
  std::string folder_;
};

/// Where the layers are divided into stages.
class CutChoice {
 public:
  /// How the cut is chosen.
  enum class Kind : std::uint8_t {
    Uniform,       ///< stages of as equal numbers of layers as possible: "uniform"
    ByParameters,  ///< stages of as equal numbers of parameters as possible: "parameters"
    Automatic,     ///< left to a plan: "auto"
    Explicit,      ///< the first layers of the second and later stages: "3,6,9"
  };
  using enum Kind;

  CutChoice() = default;
  /// \param kind any but `Explicit`, which `before` makes.
  CutChoice(Kind kind);
  CutChoice(penstock::Automatic /*left_to_a_plan*/) : kind_(Automatic) {}
  /// \throws Error (BadInput) for what is none of these, and for layers that do not ascend from 1.
  CutChoice(const std::string& text);
  CutChoice(const char* text) : CutChoice(std::string(text)) {}
  /// \param first_layers of the second and later stages; a single stage, which has none, is `Uniform`.
  /// \throws Error (BadInput) where they do not ascend from 1.
  [[nodiscard]] static CutChoice before(std::vector<std::int64_t> first_layers);

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_automatic() const { return kind_ == Automatic; }
  /// Of an explicit cut, the first layers of the second and later stages; otherwise empty.
  [[nodiscard]] const std::vector<std::int64_t>& first_layers() const { return first_layers_; }

  friend bool operator==(const CutChoice&, const CutChoice&) = default;

 private:
  Kind kind_ = Uniform;
  std::vector<std::int64_t> first_layers_;
};

/// Which schedule a run follows.
class ScheduleChoice {
 public:
  /// Where the schedule comes from.
  enum class Kind : std::uint8_t {
    Named,      ///< one that is generated: "zb-v"
    File,       ///< a file that ends in .csv
    Automatic,  ///< left to a plan: "auto"
  };
  using enum Kind;

  /// 1F1B.
  ScheduleChoice() = default;
  ScheduleChoice(penstock::Automatic left_to_a_plan);
  /// \throws Error (BadInput) for what looks like a file and does not end in .csv. Whether there is a schedule of that
  /// name, or such a file, is seen when the schedule is made (`schedule_of`).
  ScheduleChoice(const std::string& text);
  ScheduleChoice(const char* text) : ScheduleChoice(std::string(text)) {}

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_automatic() const { return kind_ == Automatic; }
  /// The schedule's name, the file's path, or "auto".
  [[nodiscard]] const std::string& text() const { return text_; }

  friend bool operator==(const ScheduleChoice&, const ScheduleChoice&) = default;

 private:
  Kind kind_ = Named;
  std::string text_ = "1f1b";
};

/// Into how many slices a minibatch is divided. Any number can be held; `check_settings` refuses those below 1.
class Microbatches {
 public:
  Microbatches(int count) : count_(count) {}
  Microbatches(Automatic /*left_to_a_plan*/) : automatic_(true) {}
  /// "8" or "auto". \throws Error (BadInput) for anything else.
  Microbatches(const std::string& text);
  Microbatches(const char* text) : Microbatches(std::string(text)) {}

  [[nodiscard]] bool is_automatic() const { return automatic_; }
  /// \throws InvariantViolation where they are left to a plan.
  [[nodiscard]] int count() const;

  friend bool operator==(const Microbatches&, const Microbatches&) = default;

 private:
  int count_ = 0;
  bool automatic_ = false;
};

/// On how many ranks the stages live.
class Ranks {
 public:
  /// As many as the schedule has for the run's stages and replicas.
  Ranks() = default;
  /// \param count 0: as many as the schedule has.
  Ranks(int count) : count_(count) {}
  Ranks(Automatic /*left_to_a_plan*/) : automatic_(true) {}
  /// "4", "0" or "auto". \throws Error (BadInput) for anything else.
  Ranks(const std::string& text);
  Ranks(const char* text) : Ranks(std::string(text)) {}

  [[nodiscard]] bool is_automatic() const { return automatic_; }
  [[nodiscard]] bool are_the_schedules() const { return !automatic_ && count_ == 0; }
  /// 0 where they are the schedule's. \throws InvariantViolation where they are left to a plan.
  [[nodiscard]] int count() const;

  friend bool operator==(const Ranks&, const Ranks&) = default;

 private:
  int count_ = 0;
  bool automatic_ = false;
};

/// Consecutive layers, both ends among them.
struct LayerRange {
  std::int64_t first = 0;
  std::int64_t last = 0;

  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

/// What a sample that holds several documents makes of them.
enum class Documents : std::uint8_t {
  Joined,  ///< one row of tokens
  Apart,   ///< a token sees its own document alone, and positions begin anew in each
  Masked,  ///< a token sees its own document alone, and positions go on
};

/// The words of what is made of documents.
template <>
struct KindWords<Documents> {
  static constexpr std::array<KindWord<Documents>, 3> all{
      {{Documents::Joined, "joined"}, {Documents::Apart, "apart"}, {Documents::Masked, "masked"}}};
};

/// Which layers stay as they are.
class FrozenLayers {
 public:
  /// None.
  FrozenLayers() = default;
  /// "0-11,13", or nothing. \throws Error (BadInput) for anything else.
  FrozenLayers(const std::string& text);
  FrozenLayers(const char* text) : FrozenLayers(std::string(text)) {}

  [[nodiscard]] bool empty() const { return ranges_.empty(); }
  /// In ascending order with gaps between them.
  [[nodiscard]] const std::vector<LayerRange>& ranges() const { return ranges_; }

  friend bool operator==(const FrozenLayers&, const FrozenLayers&) = default;

 private:
  std::vector<LayerRange> ranges_;
};

/// Which layers run their forward again for the backward.
class Recompute {
 public:
  /// How the layers are chosen.
  enum class Kind : std::uint8_t {
    None,       ///< "none"
    Full,       ///< all: "full"
    Selected,   ///< those whose activations are large beside the time that they take: "selected"
    Automatic,  ///< left to a plan: "auto"
    Layers,     ///< these: "1-4,7"
  };
  using enum Kind;

  Recompute() = default;
  /// \param kind any but `Layers`, which `of` makes.
  Recompute(Kind kind);
  Recompute(penstock::Automatic /*left_to_a_plan*/) : kind_(Automatic) {}
  /// \throws Error (BadInput) for what is none of these.
  Recompute(const std::string& text);
  Recompute(const char* text) : Recompute(std::string(text)) {}
  /// These layers, or `None` for an empty list. Ranges may touch, overlap and stand in any order.
  [[nodiscard]] static Recompute of(std::vector<LayerRange> layers);
  /// The layers whose entry is true.
  [[nodiscard]] static Recompute of(const std::vector<bool>& by_layer);

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_automatic() const { return kind_ == Automatic; }
  /// Of `Layers`, in ascending order with gaps between them; otherwise empty.
  [[nodiscard]] const std::vector<LayerRange>& ranges() const { return ranges_; }

  friend bool operator==(const Recompute&, const Recompute&) = default;

 private:
  Kind kind_ = None;
  std::vector<LayerRange> ranges_;
};

/// The form that the constructor reads: "gpt", "./Qwen3-0.6B".
[[nodiscard]] std::string to_text(const ModelChoice& model);
/// The form that the constructor reads: "uniform", "3,6,9".
[[nodiscard]] std::string to_text(const CutChoice& cut);
/// The form that the constructor reads: "zb-v", "own.csv".
[[nodiscard]] std::string to_text(const ScheduleChoice& schedule);
/// The form that the constructor reads: "8", "auto".
[[nodiscard]] std::string to_text(const Microbatches& microbatches);
/// The form that the constructor reads: "4", "0", "auto".
[[nodiscard]] std::string to_text(const Ranks& ranks);
/// The form that the constructor reads: "0-11,13".
[[nodiscard]] std::string to_text(const FrozenLayers& frozen);
/// By layer, whether it is frozen; empty where none is. \throws Error (BadInput) for a layer beyond `layers`.
[[nodiscard]] std::vector<bool> frozen_layers(const FrozenLayers& frozen, std::int64_t layers);
/// The form that the constructor reads: "none", "1-4,7".
[[nodiscard]] std::string to_text(const Recompute& recompute);

/// How a network is cut, scheduled and placed. By default one stage on one rank.
struct Layout {
  int stages = 1;
  Ranks ranks = {};               ///< of all replicas; as many as the schedule has, and given ones must be that many
  CutChoice cut = {};             ///< uniform
  ScheduleChoice schedule = {};   ///< 1F1B
  Microbatches microbatches = 4;  ///< of all replicas
  int replicas = 1;               ///< copies of the pipeline, which share the microbatches
  /// Runs of microbatches whose gradients are added along a fixed tree, so that the bits do not depend on the replicas;
  /// 0: they are added in a row.
  int gradient_tree = 0;
  Recompute recompute = {};  ///< none
  bool offload = false;      ///< keep the inputs of recomputed layers in the host's memory
  /// Of the ranks in turn: "cpu", "cuda:0". Empty: the host.
  std::vector<std::string> devices = {};
  /// 1: the same bits on any number of stages. 0: the cores divided by the ranks of the machine.
  int threads_per_rank = 1;
  std::optional<Bytes> memory_limit = {};  ///< of each rank; a run that needs more fails
  BoundaryDtype boundary_dtype = BoundaryDtype::Same;
  Bytes gradient_bucket{4 << 20};  ///< largest message of gradients between replicas
  int zero = 0;                    ///< 1: each replica keeps a share of the optimizer's state (ZeRO-1); 0: all of it

  friend bool operator==(const Layout&, const Layout&) = default;
};

/// Whether ranks, schedule, cut, microbatches or recomputation are left to a plan.
[[nodiscard]] bool is_automatic(const Layout& layout);

/// The schedule of all replicas. \param layout with schedule and microbatches chosen.
/// \throws Error (BadInput) for a name or a file that does not exist, and for stages and microbatches that it does not
/// allow.
[[nodiscard]] VerifiedSchedule schedule_of(const Layout& layout);

/// The settings of a training run, those of `penstock train`, by their subject. Needs no libtorch. The defaults train a
/// small GPT on one device. What each means stands in `visit_settings`, beside its name on the command line.
struct TrainSettings {
  /// What is learned from.
  struct Data {
    std::vector<std::string> paths = {};
    std::optional<DataKind> kind = {};  ///< none: as the files look
    double held_out = 0.1;
    std::int64_t context = 128;
    Documents documents = Documents::Joined;
    std::string field = "text";  ///< of JSON Lines

    friend bool operator==(const Data&, const Data&) = default;
  };

  /// The network.
  struct Model {
    ModelChoice kind = {};
    bool from_scratch = false;
    std::int64_t layers = 8;
    std::int64_t width = 128;
    std::int64_t heads = 4;
    double dropout = 0;
    bool tied_head = false;
    FrozenLayers freeze = {};
    std::int64_t lora = 0;  ///< rank; 0: none
    double lora_alpha = 16;
    std::vector<std::string> lora_targets = {"q_proj", "v_proj"};

    friend bool operator==(const Model&, const Model&) = default;
  };

  /// Where the layout comes from if a plan makes it, and how the run is held against the plan.
  struct Planning {
    std::string plan = {};  ///< its file
    std::string cost = {};  ///< file of the measured costs; empty: one in the cache
    bool remeasure = false;
    double drift = 0.25;

    friend bool operator==(const Planning&, const Planning&) = default;
  };

  /// How it is trained.
  struct Training {
    std::int64_t batch = 32;
    std::int64_t steps = 300;
    OptimizerKind optimizer = OptimizerKind::AdamW;
    double learning_rate = 1e-3;
    std::int64_t warmup = 20;
    double final_learning_rate = 0.1;
    double weight_decay = 0.1;
    double momentum = 0.9;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    double clip = 1;
    std::optional<bool> post_validation = {};
    int steps_in_flight = 2;  ///< 1: no rank begins a step before all have ended the last
    Precision precision = Precision::Float32;
    Precision weights = Precision::Float32;
    std::uint64_t seed = 1;

    friend bool operator==(const Training&, const Training&) = default;
  };

  /// Where it runs.
  struct Processes {
    int count = 1;
    int restarts = 0;
    bool elastic = false;
    double peer_timeout = 30;   ///< seconds
    double join_timeout = 120;  ///< seconds
    std::string listen = {};

    friend bool operator==(const Processes&, const Processes&) = default;
  };

  /// What is kept and reported.
  struct Output {
    std::string folder = {};
    bool resume = false;
    bool from_the_beginning = false;
    std::int64_t eval_every = 100;
    std::int64_t eval_samples = 256;
    std::int64_t checkpoint_every = 100;
    int keep = 3;
    bool wait_for_checkpoints = false;
    bool timeline = false;
    bool check_finite = false;

    friend bool operator==(const Output&, const Output&) = default;
  };

  Data data = {};
  Model model = {};
  Layout layout = {};
  Planning planning = {};
  Training training = {};
  Processes processes = {};
  Output output = {};

  friend bool operator==(const TrainSettings&, const TrainSettings&) = default;
};

/// Which settings are written down.
enum class TomlExtent {
  OfTheRun,    ///< all but `out`, `resume`, `from-the-beginning` and `remeasure`, which belong to one start
  OfTheStart,  ///< all
};

/// The settings as TOML, with their meanings as comments. `apply_toml` gives back equal settings.
[[nodiscard]] std::string to_toml(const TrainSettings& settings, TomlExtent extent = TomlExtent::OfTheRun);

/// Overwrites the settings that a TOML file names. In a plan's file the table `prediction` is passed over, and the path
/// of a schedule's file is relative to the plan's folder. \throws Error (BadInput) that names file and line if it is
/// not TOML, a key is unknown (with the nearest known one) or a value is of the wrong type.
void apply_toml(TrainSettings& settings, const std::filesystem::path& file);

/// Checks what can be checked without data. \throws Error (BadInput)
void check_settings(const TrainSettings& settings);

}  // namespace penstock
