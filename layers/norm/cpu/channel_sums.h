#pragma once

#include <functional>

#include "layers/norm/channel_layout.h"
#include "layers/norm/kernels.h"

namespace lamella::cpu {

/// mean[s · C + c] and m2[s · C + c] (sum of squared deviations) of every segment and channel. Blocks of
/// count, mean and M2 are merged in a fixed order (Chan, Golub & LeVeque, "Algorithms for computing the
/// sample variance", 1983). Zeros where there are no values.
void channel_moments(const detail::ConstTensorView& x, const detail::ChannelLayout& layout, double* mean,
                     double* m2);

/// The gradient of a normalisation, each array with one number per segment and channel:
/// sum = Σ g, product = Σ g · (x − mean), and dx = a · g + p · (x − mean) + q.
struct ChannelGradient {
  const double* mean;
  double* sum;
  double* product;
  const double *a, *p, *q;
  /// Computes a, p and q of statistics [first, last) once their sums are there. Called from several threads,
  /// each with a range of its own, if `channels_alone`; else once, for all.
  std::function<void(std::int64_t first, std::int64_t last)> coefficients;
  detail::ActivationSlope slope = {};
  bool channels_alone = true;  ///< the coefficients of a channel depend on its own sums only
};

/// Takes `grad` back through slope.activation, computes the sums and, if dx.data is set, dx (dense like x).
void channel_gradient(const detail::ConstTensorView& grad, const detail::ConstTensorView& x,
                      const detail::ChannelLayout& layout, const ChannelGradient& gradient,
                      const detail::TensorView& dx, detail::GradientWrite write);

}  // namespace lamella::cpu
