#include "autograd/side_branch.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <utility>

#include "core/cuda/recording.h"
#include "core/environment.h"
#include "core/shared_stream.h"
#include "lamella/core/dtype.h"
#include "lamella/core/stream.h"
#include "tensor/door.h"

namespace lamella::detail {
namespace {

/// What reads more than this keeps a GPU busy by itself; beside other work it would only hold memory.
constexpr std::int64_t kMostBytes = std::int64_t{16} << 20;
/// On top of what the walk itself holds.
constexpr std::int64_t kMostHeld = std::int64_t{64} << 20;

std::atomic<bool> allowed{true};
std::atomic<std::uint64_t> works{0}, sums{0}, settled{0};

bool is_wanted() {
  static const bool wanted = !environment_says("LAMELLA_SIDE_BRANCH", "0");
  return wanted && allowed.load(std::memory_order_relaxed);
}

std::int64_t bytes_of(const Tensors& tensors) {
  std::int64_t bytes = 0;
  for (const Tensor& tensor : tensors)
    bytes += tensor.numel() * static_cast<std::int64_t>(size_of(tensor.dtype()));
  return bytes;
}

}  // namespace

void allow_side_branches(bool allow) { allowed = allow; }
std::uint64_t works_beside() { return works.load(std::memory_order_relaxed); }
std::uint64_t sums_beside() { return sums.load(std::memory_order_relaxed); }
std::uint64_t branches_settled() { return settled.load(std::memory_order_relaxed); }

SideBranch::~SideBranch() {
  try {
    join();
  } catch (const std::exception&) {
    // The walk has failed, and with it the recording: nothing of it will run.
  }
}

bool SideBranch::takes(const Tensors& reads) {
  return reads.front().device().is_cuda() && cuda::is_recording() && is_wanted() &&
         bytes_of(reads) <= kMostBytes;
}

void SideBranch::settle(const Tensor& tensor) {
  const auto& storage = TensorDoor::impl(tensor).storage;
  const auto writes = [&](const Tensor& written) { return TensorDoor::impl(written).storage == storage; };
  if (std::none_of(written_.begin(), written_.end(), writes)) return;
  settled.fetch_add(1, std::memory_order_relaxed);
  join();
}

void SideBranch::add(const Tensors& reads, const std::function<void()>& work, const Tensors& writes) {
  const std::int64_t bytes = bytes_of(reads);
  const Device device = reads.front().device();
  if (held_bytes_ + bytes > kMostHeld || (!held_.empty() && !(held_.front().device() == device))) join();
  held_.insert(held_.end(), reads.begin(), reads.end());
  written_.insert(written_.end(), writes.begin(), writes.end());
  held_bytes_ += bytes;
  const Stream beside = shared_stream(device, StreamFor::Beside);
  wait_stream(beside, current_stream(device));
  const StreamGuard on(beside);
  works.fetch_add(1, std::memory_order_relaxed);
  if (!writes.empty()) sums.fetch_add(1, std::memory_order_relaxed);
  work();
}

void SideBranch::join() {
  if (held_.empty()) return;
  const Device device = held_.front().device();
  const Tensors held = std::exchange(held_, {}), written = std::exchange(written_, {});
  held_bytes_ = 0;
  wait_stream(current_stream(device), shared_stream(device, StreamFor::Beside));
}

}  // namespace lamella::detail
