#pragma once

#include "autograd/record.h"
#include "lamella/tensor/create.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"

/// For operators whose kernels want dense tensors in one of the two memory formats.
namespace lamella::detail {

/// `x` itself if it lies densely in either format, else a recorded copy in row-major order.
inline Tensor as_dense(const Tensor& x) { return x.contiguous(x.memory_format()); }

/// True if `shape` with these strides is dense in `format`; axes of size 1 do not matter.
inline bool is_dense(const Shape& shape, const Strides& strides, MemoryFormat format) {
  const Strides wanted = dense_strides(shape, format);
  for (int axis = 0; axis < shape.size(); ++axis)
    if (shape[axis] != 1 && strides[axis] != wanted[axis]) return false;
  return true;
}

/// Where a gradient kernel that writes dense memory writes: the target itself where that lies in `format`,
/// else a buffer that finish() copies.
class DenseTarget {
 public:
  DenseTarget(GradientContext& context, int input, MemoryFormat format) : target_(context.target(input)) {
    view_ = target_.view;
    write_ = target_.write;
    if (!target_ || is_dense(view_.shape, view_.strides, format)) return;
    buffer_ = allocate(view_.shape, view_.dtype, view_.device, format);
    view_ = detail::write(buffer_, "backward");
    write_ = GradientWrite::Overwrite;
  }
  explicit operator bool() const { return static_cast<bool>(target_); }
  const TensorView& view() const { return view_; }
  GradientWrite write() const { return write_; }
  /// To be called once, after the kernel.
  void finish() {
    if (buffer_.defined()) LAMELLA_KERNEL(view_.device, copy(view_, target_.view, target_.write));
  }

 private:
  GradientTarget target_;
  TensorView view_;
  GradientWrite write_ = GradientWrite::Overwrite;
  Tensor buffer_;
};

}  // namespace lamella::detail
