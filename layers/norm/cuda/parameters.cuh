#pragma once

#include <optional>

#include "core/cuda/number.cuh"
#include "core/cuda/packet.cuh"
#include "core/workspace.h"
#include "tensor/kernels/copy.h"
#include "tensor/strided.h"
#include "tensor/view.h"

/// Weights, biases and running estimates, of any floating type.
namespace lamella::cuda {

/// A [C] vector of any stride, read as float64; `filler` where there is none.
struct ChannelNumbers {
  ChannelNumbers(const detail::ConstTensorView& view, double filler)
      : data(view.data),
        stride(view.data != nullptr ? view.strides[0] : 0),
        dtype(view.dtype),
        filler(filler) {}
  __device__ double at(std::int64_t channel) const {
    return data != nullptr ? detail::cuda::load_number<double>(dtype, data, channel * stride) : filler;
  }

  const void* data;
  std::int64_t stride;
  DType dtype;
  double filler;
};

/// A parameter's numbers in row-major order as C, on sixteen bytes: where they lie, or copied.
template <class C>
class DenseNumbers {
 public:
  explicit DenseNumbers(const detail::ConstTensorView& view) : data_(view.as<C>()) {
    if (view.data == nullptr || view.numel() == 0) return;
    const Strides dense = dense_strides(view.shape);
    const auto plan = detail::plan_strided<2>(view.shape, {dense, view.strides});
    const bool in_order = plan.total == 1 || (plan.axes == 1 && plan.stride[1][0] == 1);
    if (in_order && view.dtype == dtype_of<C> && detail::cuda::is_aligned(view.data)) return;
    copied_.emplace(view.device, view.numel() * static_cast<std::int64_t>(sizeof(C)));
    const detail::TensorView to{copied_->template as<C>(), view.shape, dense, dtype_of<C>, view.device};
    copy(view, to, detail::GradientWrite::Overwrite);
    data_ = copied_->template as<C>();
  }
  /// Null: there are none.
  const C* get() const { return data_; }

 private:
  std::optional<detail::Workspace> copied_;
  const C* data_;
};

}  // namespace lamella::cuda
