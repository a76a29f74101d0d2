#pragma once

#include <filesystem>

/// Says that a process is training to a file, so that no other does: a lock on a file beside it, which ends
/// with the process, however that ends, and does not depend on process numbers, which begin anew in every
/// container. Where the file system knows no locks, it says nothing.
class RunLock {
 public:
  /// Locks nothing.
  RunLock() = default;
  /// Throws lamella::IoError where another process has the lock (naming it), or the file cannot be made.
  explicit RunLock(const std::filesystem::path& of);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  bool held() const { return file_ >= 0; }

 private:
  std::filesystem::path path_;
  int file_ = -1;
};
