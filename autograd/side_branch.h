#pragma once

#include <cstdint>
#include <functional>

#include "lamella/tensor/tensor.h"

namespace lamella::detail {

/// Work of a walk that nobody waits for until join(), beside the chain of gradients that all else waits for.
/// In a recording on a GPU it is launched on a stream of its own, so that replays run both at once; elsewhere
/// there is none.
///
/// What the branch reads stays as it is and is not handed out again until join(): tensors are held, and the
/// walk joins before it calls a user's code, which might write to them. What is allocated in the branch
/// belongs to its stream; since all work there begins behind what the walk's stream had queued, and join()
/// makes that stream wait, either may use the other's memory.
class SideBranch {
 public:
  SideBranch() = default;
  ~SideBranch();
  SideBranch(const SideBranch&) = delete;
  SideBranch& operator=(const SideBranch&) = delete;

  bool has_work() const { return !held_.empty(); }
  /// Whether work that reads these belongs here: it is small, and launches are being recorded.
  static bool takes(const Tensors& reads);
  /// Calls `work`; what it launches begins when all that is queued by now has ended. `work` reads nothing but
  /// these, which owe nothing to read() by now, and writes only to what it allocates.
  void add(const Tensors& reads, const std::function<void()>& work);
  /// What is queued from now on waits for the branch. Does nothing where there is none.
  void join();

 private:
  Tensors held_;
  std::int64_t held_bytes_ = 0;
};

// For tests.

/// False keeps all work of all threads out of branches, until it is told true.
void allow_side_branches(bool allowed);
/// How often work was put into a branch in this process.
std::uint64_t works_beside();

}  // namespace lamella::detail
