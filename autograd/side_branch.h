#pragma once

#include <cstdint>
#include <functional>

#include "lamella/tensor/tensor.h"

namespace lamella::detail {

/// Work of a walk that nobody waits for until join(), beside the chain of gradients that all else waits for.
/// In a recording on a GPU it is launched on a stream of its own, so that replays run both at once; elsewhere
/// there is none.
///
/// What the branch reads and writes is not handed out again until join(): tensors are held. What it reads
/// stays as it is, and nobody else reads or writes what it writes: the walk joins before it calls a user's
/// code, and before it adds to such a tensor itself (settle()). What is allocated in the branch belongs to
/// its stream; since all work there begins behind what the walk's stream had queued, and join() makes that
/// stream wait, either may use the other's memory.
class SideBranch {
 public:
  SideBranch() = default;
  ~SideBranch();
  SideBranch(const SideBranch&) = delete;
  SideBranch& operator=(const SideBranch&) = delete;

  /// Whether there is work on `device` that nothing waits for by now.
  bool has_work(Device device) const { return !held_.empty() && held_.front().device() == device; }
  /// join(), if such work writes to the tensor.
  void settle(const Tensor& tensor);
  /// Whether work that reads these belongs here: it is small, and launches are being recorded.
  static bool takes(const Tensors& reads);
  /// Calls `work`; what it launches begins when all that is queued by now has ended. `work` reads nothing but
  /// `reads`, which owe nothing to read() by now, and writes only to `writes`, which it may add to, and to
  /// what it allocates.
  void add(const Tensors& reads, const std::function<void()>& work, const Tensors& writes = {});
  /// What is queued from now on waits for the branch. Does nothing where there is none.
  void join();

 private:
  Tensors held_, written_;
  std::int64_t held_bytes_ = 0;  ///< of what is read
};

// For tests.

/// False keeps all work of all threads out of branches, until it is told true.
void allow_side_branches(bool allowed);
/// How often in this process work was put into a branch, work that writes to given tensors was, and settle()
/// joined.
std::uint64_t works_beside();
std::uint64_t sums_beside();
std::uint64_t branches_settled();

}  // namespace lamella::detail
