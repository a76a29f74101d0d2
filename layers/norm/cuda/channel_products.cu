#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/runs.cuh"
#include "layers/norm/cuda/slopes.cuh"

namespace lamella::cuda {

namespace {

template <class T>
struct Products {
  using C = ComputeType<T>;
  const T* g;
  const T* x;
  Means means;
  SlopeFactors<C> factors;
  Pair* pairs;
};

template <class T, bool kWide, class Slope>
__global__ void __launch_bounds__(kNormThreads, 2)
    row_products(const Products<T> job, const RowCut cut, const Slope slope) {
  using C = ComputeType<T>;
  using Load = Loaded<T, 2>;
  constexpr int kSize = Numbers<T>::kSize;
  __shared__ Pair shared[kSize * kNormThreads];
  const RowItem<kSize> item(cut, blockIdx.x);
  detail::cuda::wait_for_stream();
  C center[kSize] = {}, scale[kSize] = {}, shift[kSize] = {}, sum[kSize] = {}, product[kSize] = {};
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    if (item.count == 0 || k >= item.valid) continue;
    const std::int64_t lane = item.lane + k, channel = cut.each == 1 ? lane : lane / cut.each;
    center[k] = static_cast<C>(job.means.of(item.segment * cut.channels + channel));
    scale[k] = job.factors.scale_of(channel);
    shift[k] = job.factors.shift_of(channel);
  }
  in_batches_ahead<Load>(
      item.count,
      [&](unsigned i) {
        const std::int64_t at = item.offset + i * item.step;
        Load load;
        load.stream[0] = load_numbers<kWide>(job.g + at, item.valid);
        load.stream[1] = load_numbers<kWide>(job.x + at, item.valid);
        return load;
      },
      [&](const Load& load, unsigned) {
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
          const C x = load.stream[1].at(k);
          const C g = slope(load.stream[0].at(k), x * scale[k] + shift[k]);
          sum[k] += g;
          product[k] += g * (x - center[k]);
        }
      });
#pragma unroll
  for (int k = 0; k < kSize; ++k)
    lane_pair(shared, k) = {static_cast<double>(sum[k]), static_cast<double>(product[k])};
  merge_lanes<SumsTally>(cut, item, shared, job.pairs);
}

template <class T, bool kWide, class Slope>
__global__ void __launch_bounds__(kNormThreads, 2)
    plane_products(const Products<T> job, const PlaneCut cut, const Slope slope) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  using Load = Loaded<T, 2>;
  constexpr int kSize = Numbers<T>::kSize;
  PlaneItem<kSize> item(cut, blockIdx.x);
  const C center = static_cast<C>(job.means.of(item.statistic));
  const C scale = job.factors.scale_of(item.channel), shift = job.factors.shift_of(item.channel);
  RunSums<T> run;
  in_batches<Load>(
      item.count,
      [&](unsigned) {
        Load load;
        load.valid = kWide ? kSize : item.valid();
        load.stream[0] = load_numbers<kWide>(job.g + item.offset, load.valid);
        load.stream[1] = load_numbers<kWide>(job.x + item.offset, load.valid);
        item.advance();
        return load;
      },
      [&](const Load& load, unsigned) {
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
          const C x = load.stream[1].at(k);
          const C g = slope(load.stream[0].at(k), x * scale + shift);
          if (kWide || k < load.valid) run.add(k, g, x - center);
        }
      });
  run.settle();
  const Pair total = over_threads<SumsTally>(0, run.total, cut.width);
  if (item.exists && threadIdx.x == 0) job.pairs[item.part * cut.statistics + item.statistic] = total;
}

}  // namespace

void channel_products(const ConstTensorView& grad, const ConstTensorView& x, const ChannelCut& cut,
                      const Means& means, const ActivationSlope& slope, Pair* pairs) {
  if (cut.empty()) return;
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Products<T> job{grad.as<T>(), x.as<T>(), means, SlopeFactors<C>(slope), pairs};
    dispatch_wide<T>(cut.whole, {grad.data, x.data}, [&](auto wide) {
      visit_slope<C, wide()>(slope.activation, [&](auto function) {
        using Slope = decltype(function);
        if (cut.by_rows)
          detail::cuda::launch_early("channel_products", x.device, grid_of(cut.rows.blocks()), kNormThreads,
                                     0, row_products<T, wide(), Slope>, job, cut.rows, function);
        else
          detail::cuda::launch_early("channel_products", x.device, grid_of(cut.planes.blocks()),
                                     cut.planes.block(), 0, plane_products<T, wide(), Slope>, job, cut.planes,
                                     function);
      });
    });
  });
}

}  // namespace lamella::cuda
