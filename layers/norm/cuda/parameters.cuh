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

/// A floating number whose load has begun: nothing waits for it but value().
struct BegunNumber {
  std::uint64_t bits;
  DType dtype;

  __device__ static BegunNumber load(DType dtype, const void* data, std::int64_t i) {
    if (dtype == DType::Float32) return {static_cast<const std::uint32_t*>(data)[i], dtype};
    if (dtype == DType::Float64) return {static_cast<const std::uint64_t*>(data)[i], dtype};
    return {static_cast<const std::uint16_t*>(data)[i], dtype};
  }
  __device__ static BegunNumber of(double value) {
    return {static_cast<std::uint64_t>(__double_as_longlong(value)), DType::Float64};
  }
  __device__ double value() const {
    if (dtype == DType::Float32) return __uint_as_float(static_cast<unsigned>(bits));
    if (dtype == DType::Float64) return __longlong_as_double(static_cast<long long>(bits));
    const auto half = static_cast<std::uint16_t>(bits);
    return dtype == DType::BFloat16 ? __uint_as_float(static_cast<unsigned>(half) << 16)
                                    : __half2float(__ushort_as_half(half));
  }
};

/// A [C] vector of any stride, read as float64; `filler` where there is none.
struct ChannelNumbers {
  ChannelNumbers(const detail::ConstTensorView& view, double filler)
      : data(view.data),
        stride(view.data != nullptr ? view.strides[0] : 0),
        dtype(view.dtype),
        filler(filler) {}
  __device__ BegunNumber load(std::int64_t channel) const {
    return data != nullptr ? BegunNumber::load(dtype, data, channel * stride) : BegunNumber::of(filler);
  }
  __device__ double at(std::int64_t channel) const { return load(channel).value(); }

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
