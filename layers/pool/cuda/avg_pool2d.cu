#include "layers/pool/cuda/global_average.h"
#include "layers/pool/cuda/pooling.cuh"
#include "layers/pool/kernels.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::Pool2dGeometry;
using detail::TensorView;

namespace {

/// A thread per lot of outputs. A row of the window is summed, then added to the window: short chains of
/// additions even for large windows.
template <class T, class I, int V>
__global__ void __launch_bounds__(kPoolThreads)
    average_forward(const T* x, const Pooling<I> pool, std::int64_t items, T* y) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  for_each_item<I>(items, [&](I item) {
    I image = item;
    const I lot = take(pool.lots, image), ow = take(pool.w.out, image), oh = take(pool.h.out, image);
    const auto rows = pool.h.inputs(oh), columns = pool.w.inputs(ow);
    C total[V] = {};
    for (I a = 0; a < rows.count; ++a) {
      C line[V] = {};
      for (I b = 0; b < columns.count; ++b) {
        const Lot<T, V> numbers =
            load_lot<T, V>(x, pool.input(image, rows.first + a, columns.first + b, lot));
#pragma unroll
        for (int v = 0; v < V; ++v) line[v] += detail::cuda::to_compute(numbers.at[v]);
      }
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] += line[v];
    }
    const C divisor = static_cast<C>(std::int64_t{rows.divisor} * columns.divisor);
#pragma unroll
    for (int v = 0; v < V; ++v) total[v] /= divisor;
    write_lot<T, V>(total, y, item, false);
  });
}

/// A thread per lot of inputs adds up the shares of the windows over it.
template <class T, class I, int V>
__global__ void __launch_bounds__(kPoolThreads)
    average_backward(const T* grad, const Pooling<I> pool, std::int64_t items, T* dx, bool accumulate) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  for_each_item<I>(items, [&](I item) {
    I image = item;
    const I lot = take(pool.lots, image), w = take(pool.w.in, image), h = take(pool.h.in, image);
    const auto rows = pool.h.outputs(h), columns = pool.w.outputs(w);
    C total[V] = {};
    for (I oh = rows.first; oh <= rows.last; ++oh)
      for (I ow = columns.first; ow <= columns.last; ++ow) {
        const C share =
            C(1) / static_cast<C>(std::int64_t{pool.h.inputs(oh).divisor} * pool.w.inputs(ow).divisor);
        const Lot<T, V> numbers = load_lot<T, V>(grad, pool.output(image, oh, ow, lot));
#pragma unroll
        for (int v = 0; v < V; ++v) total[v] += detail::cuda::to_compute(numbers.at[v]) * share;
      }
    write_lot<T, V>(total, dx, item, accumulate);
  });
}

}  // namespace

void avg_pool2d_forward(const ConstTensorView& x, const Pool2dGeometry& g, const TensorView& y) {
  const std::int64_t total = y.numel();
  if (total == 0) return;
  if (is_global(g)) return global_average_forward(x, g, y);
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_pooling<T>(g, is_aligned(x.data) && is_aligned(y.data), [&](auto index, auto size) {
      using I = decltype(index);
      constexpr int kLot = decltype(size)::value;
      detail::cuda::launch_early("avg_pool2d", y.device, detail::cuda::blocks_for(total / kLot, kPoolThreads),
                                 kPoolThreads, 0, average_forward<T, I, kLot>, x.as<T>(),
                                 make_pooling<I>(g, kLot), total / kLot, y.as<T>());
    });
  });
}

void avg_pool2d_backward(const ConstTensorView& grad, const Pool2dGeometry& g, const TensorView& dx,
                         GradientWrite write) {
  const std::int64_t total = dx.numel();
  if (total == 0) return;
  if (is_global(g)) return global_average_backward(grad, g, dx, write);
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_pooling<T>(g, is_aligned(grad.data) && is_aligned(dx.data), [&](auto index, auto size) {
      using I = decltype(index);
      constexpr int kLot = decltype(size)::value;
      detail::cuda::launch_early("avg_pool2d backward", dx.device,
                                 detail::cuda::blocks_for(total / kLot, kPoolThreads), kPoolThreads, 0,
                                 average_backward<T, I, kLot>, grad.as<T>(), make_pooling<I>(g, kLot),
                                 total / kLot, dx.as<T>(), write == GradientWrite::Accumulate);
    });
  });
}

}  // namespace lamella::cuda
