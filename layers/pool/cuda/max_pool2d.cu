#include <cmath>

#include "layers/pool/cuda/pooling.cuh"
#include "layers/pool/kernels.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::Pool2dGeometry;
using detail::TensorView;

namespace {

/// Positions in memory; null: not wanted.
struct Places {
  void* data;
  bool wide;  ///< int64, else int32

  template <int V, class I>
  __device__ void store(const I (&where)[V], std::int64_t lot) const {
    if (data == nullptr) return;
    if (wide)
      store_as<V>(where, static_cast<std::int64_t*>(data), lot);
    else
      store_as<V>(where, static_cast<std::int32_t*>(data), lot);
  }
  /// Tells for each number of a lot whether its position is `me`.
  template <int V, class I>
  __device__ void compare(std::int64_t lot, I me, bool (&same)[V]) const {
    if (wide)
      compare_as<V>(static_cast<const std::int64_t*>(data), lot, me, same);
    else
      compare_as<V>(static_cast<const std::int32_t*>(data), lot, me, same);
  }

 private:
  template <int V, class I, class P>
  __device__ static void store_as(const I (&where)[V], P* to, std::int64_t at) {
    Lot<P, V> lot;
#pragma unroll
    for (int v = 0; v < V; ++v) lot.at[v] = static_cast<P>(where[v]);
    store_lot(lot, to, at);
  }
  template <int V, class I, class P>
  __device__ static void compare_as(const P* from, std::int64_t at, I me, bool (&same)[V]) {
    const Lot<P, V> lot = load_lot<P, V>(from, at);
#pragma unroll
    for (int v = 0; v < V; ++v) same[v] = lot.at[v] == static_cast<P>(me);
  }
};

/// A thread per lot of outputs: the taps that its neighbours read, too, come from the caches.
template <class T, class I, int V>
__global__ void __launch_bounds__(kPoolThreads)
    max_forward(const T* x, const Pooling<I> pool, std::int64_t items, T* y, const Places places) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  for_each_item<I>(items, [&](I item) {
    I image = item;
    const I lot = take(pool.lots, image), ow = take(pool.w.out, image), oh = take(pool.h.out, image);
    const auto rows = pool.h.inputs(oh), columns = pool.w.inputs(ow);
    C best[V];
    I where[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      best[v] = -static_cast<C>(INFINITY);
      where[v] = -1;
    }
    for (I a = 0; a < rows.count; ++a)
      for (I b = 0; b < columns.count; ++b) {
        const I h = rows.first + a * pool.h.dilation.size(), w = columns.first + b * pool.w.dilation.size();
        const Lot<T, V> numbers = load_lot<T, V>(x, pool.input(image, h, w, lot));
        const I at = h * pool.w.in.size() + w;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const C value = detail::cuda::to_compute(numbers.at[v]);
          const bool wins = value > best[v] || value != value || where[v] < 0;
          best[v] = wins ? value : best[v];
          where[v] = wins ? at : where[v];
        }
      }
    Lot<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.at[v] = detail::cuda::from_compute<T>(best[v]);
    store_lot(result, y, item);
    places.store<V>(where, item);
  });
}

/// A thread per lot of inputs asks the windows over it, in order, whether it won: nothing to clear before, no
/// atomics, and half types are rounded once.
template <class T, class I, int V>
__global__ void __launch_bounds__(kPoolThreads)
    max_backward(const T* grad, const Places places, const Pooling<I> pool, std::int64_t items, T* dx,
                 bool accumulate) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  for_each_item<I>(items, [&](I item) {
    I image = item;
    const I lot = take(pool.lots, image), w = take(pool.w.in, image), h = take(pool.h.in, image);
    const auto rows = pool.h.outputs(h), columns = pool.w.outputs(w);
    C total[V] = {};
    if (accumulate) {
      const Lot<T, V> before = load_lot<T, V>(dx, item);
#pragma unroll
      for (int v = 0; v < V; ++v) total[v] = detail::cuda::to_compute(before.at[v]);
    }
    for (I oh = rows.first; oh <= rows.last; ++oh)
      for (I ow = columns.first; ow <= columns.last; ++ow) {
        const I at = pool.output(image, oh, ow, lot);
        bool won[V];
        places.compare<V>(at, h * pool.w.in.size() + w, won);
        const Lot<T, V> numbers = load_lot<T, V>(grad, at);
#pragma unroll
        for (int v = 0; v < V; ++v) total[v] += won[v] ? detail::cuda::to_compute(numbers.at[v]) : C(0);
      }
    write_lot<T, V>(total, dx, item, false);
  });
}

}  // namespace

void max_pool2d_forward(const ConstTensorView& x, const Pool2dGeometry& g, const TensorView& y,
                        const TensorView& positions) {
  const std::int64_t total = y.numel();
  if (total == 0) return;
  const Places places{positions.data, positions.dtype == DType::Int64};
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool aligned = is_aligned(x.data) && is_aligned(y.data) && is_aligned(places.data);
    with_pooling<T>(g, aligned, [&](auto index, auto size) {
      using I = decltype(index);
      constexpr int kLot = decltype(size)::value;
      detail::cuda::launch_early("max_pool2d", y.device, detail::cuda::blocks_for(total / kLot, kPoolThreads),
                                 kPoolThreads, 0, max_forward<T, I, kLot>, x.as<T>(),
                                 make_pooling<I>(g, kLot), total / kLot, y.as<T>(), places);
    });
  });
}

void max_pool2d_backward(const ConstTensorView& grad, const ConstTensorView& positions,
                         const Pool2dGeometry& g, const TensorView& dx, GradientWrite write) {
  const std::int64_t total = dx.numel();
  if (total == 0) return;
  const Places places{const_cast<void*>(positions.data), positions.dtype == DType::Int64};
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool aligned = is_aligned(grad.data) && is_aligned(places.data) && is_aligned(dx.data);
    with_pooling<T>(g, aligned, [&](auto index, auto size) {
      using I = decltype(index);
      constexpr int kLot = decltype(size)::value;
      detail::cuda::launch_early("max_pool2d backward", dx.device,
                                 detail::cuda::blocks_for(total / kLot, kPoolThreads), kPoolThreads, 0,
                                 max_backward<T, I, kLot>, grad.as<T>(), places, make_pooling<I>(g, kLot),
                                 total / kLot, dx.as<T>(), write == GradientWrite::Accumulate);
    });
  });
}

}  // namespace lamella::cuda
