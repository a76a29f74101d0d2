#include <algorithm>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/workspace.h"
#include "layers/loss/cuda/block.cuh"
#include "layers/loss/functions.h"
#include "layers/loss/kernels.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PointwiseLoss;
using detail::PointwiseOperands;
using detail::TensorView;
using detail::Workspace;
using detail::cuda::from_compute;
using detail::cuda::launch_early;
using detail::cuda::to_compute;
using detail::cuda::wait_for_stream;
using detail::cuda::write_number;

namespace {

/// Which of a loss's formulas a kernel computes.
template <class Loss>
struct Value {
  template <class C>
  __device__ static C of(C x, C t, C w, C positive) {
    return Loss::value(x, t, w, positive);
  }
};
template <class Loss>
struct Gradient {
  template <class C>
  __device__ static C of(C x, C t, C w, C positive) {
    return Loss::gradient(x, t, w, positive);
  }
};
template <class Loss>
struct TargetGradient {
  template <class C>
  __device__ static C of(C x, C t, C w, C positive) {
    return Loss::target_gradient(x, t, w, positive);
  }
};

template <class T>
struct Elements {
  using C = ComputeType<T>;
  const T* x;
  const T* target;
  const C* weight;    ///< null: 1
  const C* positive;  ///< null: 1
  std::int64_t count;

  template <class F>
  __device__ C apply(std::int64_t i) const {
    return F::of(to_compute(x[i]), to_compute(target[i]), weight != nullptr ? weight[i] : C(1),
                 positive != nullptr ? positive[i] : C(1));
  }
};
template <class T>
Elements<T> elements_of(const PointwiseOperands& from) {
  using C = ComputeType<T>;
  return {from.x.as<T>(), from.target.as<T>(), from.weight.as<C>(), from.pos_weight.as<C>(), from.x.numel()};
}

/// to = or += F of each element, times grad / divisor if there is a gradient.
template <class F, class T>
__global__ void __launch_bounds__(kLossThreads)
    apply_each(const Elements<T> elements, const T* grad, bool each, double divisor, T* to, bool accumulate) {
  wait_for_stream();
  using C = ComputeType<T>;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < elements.count; i += step) {
    C value = elements.template apply<F>(i);
    if (grad != nullptr) value *= to_compute(grad[each ? i : 0]) / static_cast<C>(divisor);
    write_number(to[i], value, accumulate);
  }
}

/// partial[block] = the sum of a block's elements.
template <class F, class T>
__global__ void __launch_bounds__(kLossThreads) add_up(const Elements<T> elements, double* partial) {
  wait_for_stream();
  __shared__ double shared[kLossThreads];
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < elements.count; i += step)
    sum += static_cast<double>(elements.template apply<F>(i));
  sum = sum_over_block(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(kLossThreads)
    finish_sum(const double* partial, std::int64_t parts, double divisor, T* loss) {
  wait_for_stream();
  __shared__ double shared[kLossThreads];
  const double sum = sum_in_block(partial, parts, 1, shared);
  if (threadIdx.x == 0) *loss = from_compute<T>(static_cast<ComputeType<T>>(sum / divisor));
}

template <class F, class T>
void launch_each(const PointwiseOperands& operands, const ConstTensorView& grad, bool each, double divisor,
                 const TensorView& to, bool accumulate) {
  const Elements<T> elements = elements_of<T>(operands);
  launch_early("pointwise loss", to.device, detail::cuda::blocks_for(elements.count, kLossThreads),
               kLossThreads, 0, apply_each<F, T>, elements, grad.as<T>(), each, divisor, to.as<T>(),
               accumulate);
}

template <class F, class T>
void forward(const PointwiseOperands& operands, Reduction reduction, const TensorView& loss) {
  if (reduction == Reduction::None) return launch_each<F, T>(operands, {}, false, 1, loss, false);
  // Blocks by the number of elements alone: the order of the sum must not depend on the GPU.
  constexpr std::int64_t kMostBlocks = 1024, kPerBlock = 8 * kLossThreads;
  const Elements<T> elements = elements_of<T>(operands);
  const std::int64_t parts = std::min((elements.count + kPerBlock - 1) / kPerBlock, kMostBlocks);
  const Workspace partial(loss.device, parts * static_cast<std::int64_t>(sizeof(double)));
  launch_early("pointwise loss", loss.device, static_cast<unsigned>(parts), kLossThreads, 0, add_up<F, T>,
               elements, partial.as<double>());
  launch_early("pointwise loss", loss.device, 1, kLossThreads, 0, finish_sum<T>, partial.as<double>(), parts,
               reduction == Reduction::Mean ? static_cast<double>(elements.count) : 1.0, loss.as<T>());
}

}  // namespace

void pointwise_loss_forward(PointwiseLoss kind, const PointwiseOperands& operands, Reduction reduction,
                            const TensorView& loss) {
  detail::dispatch_floating(operands.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    detail::with_loss(
        kind, [&](auto formulas) { forward<Value<decltype(formulas)>, T>(operands, reduction, loss); });
  });
}

void pointwise_loss_backward(PointwiseLoss kind, const PointwiseOperands& operands, Reduction reduction,
                             const ConstTensorView& grad, bool of_target, const TensorView& to,
                             GradientWrite write) {
  const bool each = reduction == Reduction::None, accumulate = write == GradientWrite::Accumulate;
  const double divisor = reduction == Reduction::Mean ? static_cast<double>(operands.x.numel()) : 1.0;
  detail::dispatch_floating(operands.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    detail::with_loss(kind, [&](auto formulas) {
      using Loss = decltype(formulas);
      if (of_target)
        launch_each<TargetGradient<Loss>, T>(operands, grad, each, divisor, to, accumulate);
      else
        launch_each<Gradient<Loss>, T>(operands, grad, each, divisor, to, accumulate);
    });
  });
}

}  // namespace lamella::cuda
