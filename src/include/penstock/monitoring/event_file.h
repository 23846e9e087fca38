/// \file
/// A run's figures as TensorBoard reads them: records of TensorFlow's TFRecord form (length, masked CRC-32C, bytes,
/// masked CRC-32C), each a protobuf message `tensorflow.Event` with a `Summary` of simple values.
///
///     penstock::EventFile events("runs/first/tensorboard", /*last_step=*/0);
///     events.add(1, seconds_since_1970, {{"loss", "training_loss", "mean over the minibatch", 3.2}});
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/monitoring/figure.h"

namespace penstock {

/// The one file of events in a folder. Each record is written at once, so that after a kill all but the last are whole.
class EventFile {
 public:
  /// Makes the folder and the file, or goes on with it: then events of later steps than `last_step`, and a record that
  /// a kill has torn, are dropped, so that a run which makes those steps again has each point once.
  /// \throws Error (RunFailed) where it cannot be written.
  EventFile(const std::filesystem::path& folder, std::int64_t last_step);
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;
  EventFile(EventFile&&) = delete;
  EventFile& operator=(EventFile&&) = delete;
  ~EventFile();

  /// One event. A figure's tag is "group/name", of a rank "group/name/rank_2". \param seconds since 1970 (UTC).
  /// \throws Error (RunFailed)
  void add(std::int64_t step, double seconds, const std::vector<Figure>& figures);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// CRC-32C (Castagnoli), as RFC 3720 has it.
[[nodiscard]] std::uint32_t crc32c(std::string_view bytes);

}  // namespace penstock
