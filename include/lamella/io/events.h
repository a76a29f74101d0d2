#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "lamella/core/export.h"

/// @file
/// TensorBoard's event files: curves of a run that `tensorboard --logdir FOLDER` shows while it goes on.
namespace lamella::io {

/// How an EventWriter begins.
struct EventWriterOptions {
  /// A run that goes on says from which step: TensorBoard then forgets what earlier files of the folder have
  /// at this step and later, such as what was logged after the last checkpoint. None: forgets nothing.
  std::optional<std::int64_t> purge_step = std::nullopt;
};

/// Writes scalars to a file of its own in a folder that TensorBoard watches. Files that are there already are
/// never changed: a run that goes on adds one, and TensorBoard joins them. One thread at a time.
///
///     EventWriter events("runs/first");
///     events.add_scalar("train/loss", step, loss);
///
/// Events are gathered and go out 64 KiB at a time, with flush() and at the end; until then nobody sees them.
/// The file always ends behind a whole event: after a failure, such as a full disk, what went out in part is
/// taken back and stays gathered, for the next flush().
class LAMELLA_API EventWriter {
 public:
  /// Makes the folder, and those above it, where missing, and in it a new file named
  /// "events.out.tfevents.<seconds since 1970>.<host>.<process>.<number>". Throws IoError naming the path
  /// that cannot be made or written, Error for a negative purge_step.
  explicit EventWriter(const std::filesystem::path& folder, const EventWriterOptions& options = {});
  /// Flushes. A failure is logged as an error; call flush() before to have it thrown.
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  /// Adds a point to the curve `tag`, UTF-8; TensorBoard groups tags by what stands before the first "/".
  /// `value` is stored as float32, in which large ones become infinite; infinities and NaN are allowed, and
  /// TensorBoard marks them. `step` is any count that grows, such as of updates or epochs. `wall_time` is in
  /// seconds since 1970; none: now. Throws Error for a tag that is empty or not UTF-8, a negative step or a
  /// time that is not finite; IoError naming the path where gathered events had to go out and could not, and
  /// then this one is not added.
  void add_scalar(const std::string& tag, std::int64_t step, double value,
                  std::optional<double> wall_time = std::nullopt);

  /// Hands everything added to the operating system, so that readers see it. Throws IoError naming the path;
  /// the events stay gathered then.
  void flush();

  /// The file written.
  const std::filesystem::path& path() const { return path_; }
  /// Size in bytes of what is in the file for good: whole events only.
  std::uint64_t bytes_written() const { return written_; }

 private:
  void append(const std::string& event);

  std::filesystem::path path_;
  int file_ = -1;
  std::uint64_t written_ = 0;
  std::string gathered_;  ///< whole records
};

}  // namespace lamella::io
