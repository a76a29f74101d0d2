#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/allocator.h"
#include "lamella/tensor/tensor.h"

namespace lamella::detail {

struct Node;
struct Pending;

/// A pending tensor and the geometry in which its storage holds the values before its debt.
struct Debt {
  std::weak_ptr<Pending> pending;
  Shape shape;
  Strides strides;
  std::int64_t offset = 0;
  DType dtype = DType::Float32;
};

/// Reference-counted memory. `version` counts in-place changes; `last_change` names the last operator that
/// made one.
struct Storage {
  Storage(std::size_t bytes, Device device, bool pinned = false);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Block block;
  Device device;
  bool pinned;  ///< page-locked memory of the CPU
  Allocator& allocator;
  Stream stream;
  std::atomic<std::uint64_t> version{0};
  std::atomic<const char*> last_change{""};

  std::mutex debts_mutex;
  std::vector<Debt> debts;  ///< of tensors that may still have to be computed from what is stored here
};

/// Elementwise functions that a pending tensor may still owe.
enum class PendingActivation : std::uint8_t { None, Relu, Relu6, Hardswish, Silu };

/// What a tensor still owes: applied = activation(stored · scale[c] + shift[c]), c along axis 1. Shared by
/// every alias of the tensor, so that it is applied at most once. See docs/architecture.md, "Pending
/// tensors".
struct Pending {
  Tensor scale;   ///< [C], float32 (float64 for float64 values); undefined: 1
  Tensor shift;   ///< [C], likewise; undefined: 0
  Tensor center;  ///< [C], likewise: of a norm that wants sums with its gradient, what `stored` is taken
                  ///< relative to
  PendingActivation activation = PendingActivation::None;
  std::uint64_t stored_version = 0;  ///< version of the stored values when the debt was made

  std::mutex mutex;
  std::shared_ptr<Storage>
      applied;  ///< the result once somebody asked for it, in the stored strides and offset
};

struct TensorImpl {
  std::shared_ptr<Storage> storage;
  std::shared_ptr<Pending> pending;  ///< null: storage holds the values themselves
  Shape shape;
  Strides strides;
  std::int64_t offset = 0;  ///< elements before the first one
  DType dtype = DType::Float32;
  Tensor moments;  ///< see leave_moments()
  std::int64_t moments_of_part = 0;
  std::uint64_t moments_version = 0;

  bool requires_grad = false;       ///< of a leaf; results of operators have a node instead
  std::shared_ptr<Node> node;       ///< the operator that made this tensor, if recorded
  int output = 0;                   ///< which of its outputs
  Tensor grad;                      ///< accumulated gradient; kept (stale) across zero_grad()
  bool grad_stale = false;          ///< the next write into grad is an overwrite
  std::vector<GradientHook> hooks;  ///< of a leaf; results keep theirs in the node
};

}  // namespace lamella::detail
