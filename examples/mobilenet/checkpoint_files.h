#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint.h"
#include "run_lock.h"

/// The checkpoints of a training: the newest under the name it was given, say net.safetensors; those before
/// it as net.1.safetensors (the youngest of them), net.2.safetensors and so on; the best as
/// net.best.safetensors. Whenever the program is killed and whatever fails, the newest is whole, and so are
/// the others.
class CheckpointFiles {
 public:
  /// Nothing is ever written.
  CheckpointFiles() = default;
  /// `keep` is how many there are at most, the newest among them and the best not; older ones that are there
  /// already stay. No other process can have the same files until this is gone (see RunLock); what writers
  /// left here that were killed is removed. Throws lamella::Error for a `keep` below 1, lamella::IoError
  /// where another process has them.
  CheckpointFiles(std::filesystem::path path, int keep);

  bool writes() const { return !path_.empty(); }
  const std::filesystem::path& path() const { return path_; }

  /// Makes `checkpoint` the newest. Throws as save_checkpoint(); all files are then as they were.
  void save(const Checkpoint& checkpoint) const;
  /// Makes the newest the best, too.
  void mark_best() const;

  /// The name of another checkpoint beside `path`: net.<what>.safetensors.
  static std::filesystem::path beside(const std::filesystem::path& path, const std::string& what);

 private:
  std::filesystem::path spare_name() const;
  void remove_leftovers() const;

  std::filesystem::path path_;
  int keep_ = 1;
  std::optional<RunLock> lock_;
};
