#pragma once

#include "layers/norm/cuda/plane_cut.cuh"
#include "layers/norm/kernels.h"

/// Sums over the channels of a tensor, and what is computed from a channel's numbers: the passes over memory
/// that batch norm and group norm share.
namespace lamella::cuda {

using detail::ActivationSlope;
using detail::ChannelLayout;
using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

/// How the work over a layout is cut: by shape alone.
struct ChannelCut {
  ChannelCut(const ChannelLayout& layout, DType dtype);

  bool empty() const { return layout.count() == 0 || layout.statistics() == 0; }
  PartCounts counts() const {
    if (empty()) return {};
    return by_rows ? rows.counts() : planes.counts();
  }
  std::int64_t pair_bytes() const {
    return counts().parts * layout.statistics() * static_cast<std::int64_t>(sizeof(Pair));
  }

  ChannelLayout layout;
  bool by_rows = false;  ///< rows of pixels; or of images whose planes are small; else planes
  bool whole = false;    ///< rows or planes are whole packets
  RowCut rows;
  PlaneCut planes;
};

/// The mean of a statistic; `together` neighbouring ones share one.
struct Means {
  const double* mean;
  std::int64_t together = 1;

  __device__ double of(std::int64_t statistic) const {
    return mean[together == 1 ? statistic : statistic / together];
  }
};

/// pairs[part · statistics + s] = mean and M2 of every part.
void channel_moments(const ConstTensorView& x, const ChannelCut& cut, Pair* pairs);

/// pairs[part · statistics + s] = Σ g and Σ g · (x − center), of g the gradient behind `slope` and center the
/// mean as rounded to the compute type.
void channel_products(const ConstTensorView& grad, const ConstTensorView& x, const ChannelCut& cut,
                      const Means& means, const ActivationSlope& slope, Pair* pairs);

/// dx = a · g + p · (x − center) + q; `factors` are a, p, q and center of every statistic, in the compute
/// type.
void channel_gradient(const ConstTensorView& grad, const ConstTensorView& x, const ChannelCut& cut,
                      const void* factors, const ActivationSlope& slope, const TensorView& dx,
                      GradientWrite write);

/// y = (x − center) · scale + shift; `factors` are center, scale and shift of every statistic, in the compute
/// type.
void channel_apply(const ConstTensorView& x, const ChannelCut& cut, const void* factors, const TensorView& y);

}  // namespace lamella::cuda
