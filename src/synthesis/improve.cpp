#include "synthesis/improve.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "penstock/base/index.h"

namespace penstock {
namespace {

// A pass that goes from one position of its rank's row to another, those between moving up.
struct Move {
  std::int32_t rank = 0;
  std::int32_t from = 0;
  std::int32_t to = 0;

  [[nodiscard]] Move undone() const { return {rank, to, from}; }
};

void shift(PassOrder& order, const Move& move) {
  const auto row = entry(order, move.rank).begin();
  if (move.from < move.to)
    std::rotate(row + move.from, row + move.from + 1, row + move.to + 1);
  else
    std::rotate(row + move.to, row + move.from, row + move.from + 1);
}

class Improver {
 public:
  Improver(const PipelineProblem& problem, Evaluator& evaluator, const ImproveOptions& options)
      : problem_(problem), evaluator_(evaluator), options_(options), random_(options.seed) {}

  void run(PassOrder& best, SpanScore& best_score) {
    PassOrder order = best;
    SpanScore score = evaluator_.evaluate(order);
    evaluator_.critical_path(path_);
    const double mean_pass = mean_duration();
    const std::int64_t rounds_asked = rounds_between_questions(problem_);
    double spent = options_.spent();
    for (std::int64_t round = 0; spent < 1 && best_score.longest > options_.bound; ++round) {
      if (round % rounds_asked == 0) spent = options_.spent();
      // Cools from a twentieth of a pass. Hotter, and what the start was good at is lost before it is cold again.
      const double temperature = 0.05 * mean_pass * std::pow(0.01, std::min(spent, 1.0));
      Move move;
      if (!draw(order, move)) continue;
      shift(order, move);
      const SpanScore tried =
          is_row_legal(problem_, move.rank, entry(order, move.rank)) ? evaluator_.evaluate(order) : SpanScore{};
      const double change = tried.blended() - score.blended();
      if (!(change <= 0 || uniform() < std::exp(-change / temperature))) {
        shift(order, move.undone());
        continue;
      }
      score = tried;
      evaluator_.critical_path(path_);
      if (score < best_score) {
        best = order;
        best_score = score;
      }
    }
  }

 private:
  [[nodiscard]] double uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  [[nodiscard]] std::int32_t below(std::int32_t count) {
    return std::uniform_int_distribution<std::int32_t>(0, count - 1)(random_);
  }

  [[nodiscard]] double mean_duration() const {
    double sum = 0;
    for (const double duration : problem_.duration) sum += duration;
    return sum / static_cast<double>(problem_.duration.size());
  }

  // A pass of the critical path and where to. Most moves change the order within a block, the passes of one rank that
  // follow each other without a gap; only its first and last passes can shorten the path.
  bool draw(const PassOrder& order, Move& move) {
    if (path_.empty()) return false;
    const auto at = as_index(below(static_cast<std::int32_t>(path_.size())));
    move.rank = path_[at].rank;
    move.from = path_[at].position;
    const auto size = static_cast<std::int32_t>(entry(order, move.rank).size());
    if (size < 2) return false;
    const double kind = uniform();
    if (kind < 0.4) {
      move.to = move.from + (uniform() < 0.5 ? -1 : 1);
    } else if (kind < 0.7) {
      // To an end of the block.
      std::size_t first = at;
      std::size_t last = at;
      while (last + 1 < path_.size() && path_[last + 1].rank == move.rank) ++last;  // earlier in time
      while (first > 0 && path_[first - 1].rank == move.rank) --first;
      move.to = uniform() < 0.5 ? path_[last].position : path_[first].position;
    } else {
      const auto reach = static_cast<std::int32_t>(2 + std::exponential_distribution<double>(0.15)(random_));
      move.to = move.from + below(2 * reach + 1) - reach;
    }
    return move.to >= 0 && move.to < size && move.to != move.from && differs(order, move);
  }

  // Moving a pass over others of its own kind changes nothing.
  [[nodiscard]] static bool differs(const PassOrder& order, const Move& move) {
    const auto& row = entry(order, move.rank);
    const auto [low, high] = std::minmax(move.from, move.to);
    const PassCode code = entry(row, move.from);
    for (std::int32_t position = low; position <= high; ++position)
      if (entry(row, position) != code) return true;
    return false;
  }

  const PipelineProblem& problem_;
  Evaluator& evaluator_;
  const ImproveOptions& options_;
  std::mt19937_64 random_;
  std::vector<Evaluator::Place> path_;
};

}  // namespace

void improve(const PipelineProblem& problem, Evaluator& evaluator, PassOrder& order, SpanScore& score,
             const ImproveOptions& options) {
  Improver(problem, evaluator, options).run(order, score);
}

}  // namespace penstock
