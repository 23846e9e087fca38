// What workers write to standard error, as lines, and which of them are shown.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace penstock::launching {

// Cuts what arrives in pieces into lines. A line longer than 64 KiB is cut; '\r' ends a line too, as progress bars have
// it.
class LineReader {
 public:
  // Calls `line` for each line that `piece` completes.
  void add(std::string_view piece, const std::function<void(const std::string&)>& line);
  // Calls `line` for what came after the last end of a line.
  void finish(const std::function<void(const std::string&)>& line);

 private:
  std::string begun_;
};

// Whether a line is about something that went wrong or may go wrong, by the words that programs use for it.
[[nodiscard]] bool reports_failure(std::string_view line);

// Decides what is shown of the lines of all ranks of one attempt.
class MessageRelay {
 public:
  MessageRelay(int ranks, bool verbose, std::function<void(const std::string&)> show);

  void add(int rank, const std::string& line);
  // Shows the lines of a rank that were held back.
  void show_held(int rank);
  // A rank's last line about trouble, else its last line; empty before it wrote any.
  [[nodiscard]] const std::string& last_line(int rank) const;

 private:
  struct Rank {
    std::string last;
    std::string last_trouble;
    std::deque<std::string> held;
  };

  void show(int rank, const std::string& line);

  bool verbose_;
  std::function<void(const std::string&)> show_;
  std::vector<Rank> ranks_;
  // Who was the first to say something.
  std::unordered_map<std::string, int> first_ranks_;
};

}  // namespace penstock::launching
