#pragma once

#include <memory>

#include "lamella/tensor/tensor.h"
#include "tensor/impl.h"
#include "tensor/view.h"

/// The one door from a Tensor to its memory. Operators call read() and write() and hand the views to kernels;
/// nothing else touches a tensor's pointer, strides, version or pending state.
namespace lamella::detail {

struct TensorDoor {
  static TensorImpl& impl(const Tensor& tensor) { return *tensor.impl_; }
  static const std::shared_ptr<TensorImpl>& handle(const Tensor& tensor) { return tensor.impl_; }
  static Tensor wrap(std::shared_ptr<TensorImpl> impl) { return Tensor(std::move(impl)); }
};

/// The values, applying first what the tensor still owes.
ConstTensorView read(const Tensor& tensor);

/// The memory to write into. Counts as an in-place change by `op` (a name with static lifetime), before which
/// pending tensors that are computed from this memory are: they keep the values they had.
TensorView write(const Tensor& tensor, const char* op);

/// The values and what they still owe, for kernels that fold it into their load.
struct PendingView {
  ConstTensorView stored;
  const void* scale = nullptr;  ///< [C] or null: 1
  const void* shift = nullptr;  ///< [C] or null: 0
  PendingActivation activation = PendingActivation::None;
  const void* center = nullptr;  ///< [C] or null: see Pending
};
PendingView read_pending(const Tensor& tensor);
/// True if the tensor owes something nobody has applied yet.
bool is_pending(const Tensor& tensor);
/// The tensor with a debt on top: shares `stored`'s memory. `stored` must not be pending. `center`: see
/// Pending.
Tensor make_pending(const Tensor& stored, const Tensor& scale, const Tensor& shift,
                    PendingActivation activation, const Tensor& center = {});
/// Adds an activation to a tensor that owes none yet (pending or not).
Tensor with_activation(const Tensor& tensor, PendingActivation activation);

/// A dense, uninitialised tensor that nobody else holds. `pinned`: of the CPU, in page-locked memory.
Tensor allocate(const Shape& shape, DType dtype, Device device,
                MemoryFormat format = MemoryFormat::Contiguous, bool pinned = false);
/// Another handle on the same memory (and debt), with other geometry and no gradient state.
Tensor alias(const Tensor& tensor);
Tensor alias(const Tensor& tensor, const Shape& shape, const Strides& strides, std::int64_t extra_offset);
/// Lets a leaf, and everybody who holds it, stand for other numbers of the same shape: another type, device
/// or format.
void replace_values(const Tensor& leaf, const Tensor& values);

/// Counts debts that were folded into a load, and debts that had to be applied on their own.
struct PendingCounters {
  std::uint64_t folded = 0;
  std::uint64_t applied = 0;
};
PendingCounters pending_counters();
void count_folded();

/// While it lives with `on` false, operators of this thread leave nothing to others; see LAMELLA_FUSION.
class FusionGuard {
 public:
  explicit FusionGuard(bool on);
  ~FusionGuard();
  FusionGuard(const FusionGuard&) = delete;
  FusionGuard& operator=(const FusionGuard&) = delete;

 private:
  bool before_;
};
bool fusion_enabled();  ///< of this thread

/// Throws Error naming `op` unless defined.
void check_defined(const char* op, const char* argument, const Tensor& tensor);
/// Throws DTypeError naming `op` unless floating.
void check_floating(const char* op, const char* argument, const Tensor& tensor);
/// Throws DeviceError naming `op` and both unless the devices are the same.
void check_same_device(const char* op, const Tensor& a, const Tensor& b);
/// Throws DTypeError naming `op` and both unless the types are the same.
void check_same_dtype(const char* op, const Tensor& a, const Tensor& b);

}  // namespace lamella::detail
