#pragma once

#include <filesystem>
#include <string>

#include "checkpoint.h"

/// The checkpoints of a training: the newest under the name it was given, say net.safetensors; those before
/// it as net.1.safetensors (the youngest of them), net.2.safetensors and so on; the best as
/// net.best.safetensors. Whenever the program is killed and whatever fails, the newest is whole, and so are
/// the others.
class CheckpointFiles {
 public:
  /// An empty path: nothing is ever written. `keep` is how many there are at most, the newest among them and
  /// the best not; older ones that are there already stay. Removes what writers left here that were killed.
  /// Throws lamella::Error for a `keep` below 1.
  CheckpointFiles(std::filesystem::path path, int keep);

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
  int keep_;
};
