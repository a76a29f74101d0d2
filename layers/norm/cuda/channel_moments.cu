#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/runs.cuh"

namespace lamella::cuda {

namespace {

/// Planes up to this size are lanes of rows of images, where there are images enough.
constexpr std::int64_t kSmallPlane = 256;
constexpr std::int64_t kImagesForRows = 8;

template <class T, bool kWide>
__global__ void __launch_bounds__(kNormThreads, 3) row_moments(const T* x, const RowCut cut, Pair* pairs) {
  using C = ComputeType<T>;
  constexpr int kSize = Numbers<T>::kSize;
  __shared__ Pair shared[kSize * kNormThreads];
  const RowItem<kSize> item(cut, blockIdx.x);
  detail::cuda::wait_for_stream();
  C pivot[kSize] = {}, sum[kSize] = {}, square[kSize] = {};
  in_batches_ahead<Numbers<T>>(
      item.count,
      [&](unsigned i) { return load_numbers<kWide>(x + item.offset + i * item.step, item.valid); },
      [&](const Numbers<T>(&batch)[kBatch], unsigned n) {
        // The mean of the first batch: a number that is not far from the channel's mean.
        constexpr C kShare = C(1) / C(kBatch);
#pragma unroll
        for (int k = 0; k < kSize; ++k)
#pragma unroll
          for (unsigned u = 0; u < kBatch; ++u)
            pivot[k] += kShare * (u < n ? batch[u].at(k) : batch[0].at(k));
      },
      [&](const Numbers<T>& packet, unsigned) {
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
          const C d = packet.at(k) - pivot[k];
          sum[k] += d;
          square[k] += d * d;
        }
      });
  const double count = item.count, inverse = item.count > 0 ? 1 / count : 0;
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    const double total = sum[k], moved = total * inverse, m2 = static_cast<double>(square[k]) - total * moved;
    lane_pair(shared, k) = {static_cast<double>(pivot[k]) + moved, m2 < 0 ? 0 : m2};
  }
  merge_lanes<MomentsTally>(cut, item, shared, pairs);
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kNormThreads, 3)
    plane_moments(const T* x, const PlaneCut cut, Pair* pairs) {
  detail::cuda::wait_for_stream();
  using Load = Loaded<T, 1>;
  constexpr int kSize = Numbers<T>::kSize;
  PlaneItem<kSize> item(cut, blockIdx.x);
  RunMoments<T> run;
  in_batches<Load>(
      item.count,
      [&](unsigned) {
        Load load;
        load.valid = kWide ? kSize : item.valid();
        load.stream[0] = load_numbers<kWide>(x + item.offset, load.valid);
        item.advance();
        return load;
      },
      [&](const Load(&batch)[kBatch], unsigned n) { run.begin(batch, n); },
      [&](const Load& load, unsigned) { run.template add<kWide>(load); });
  run.settle();
  const Pair total = over_threads<MomentsTally>(run.count, run.result(), cut.width);
  if (item.exists && threadIdx.x == 0) pairs[item.part * cut.statistics + item.statistic] = total;
}

}  // namespace

ChannelCut::ChannelCut(const ChannelLayout& layout, DType dtype) : layout(layout) {
  if (empty()) return;
  const int packet = 16 / static_cast<int>(size_of(dtype));
  const bool small_planes =
      layout.segments == 1 && layout.inner <= kSmallPlane && layout.images >= kImagesForRows;
  by_rows = layout.channels_last || small_planes;
  if (layout.channels_last) {
    rows = RowCut(layout.segments, layout.count(), layout.channels, 1, packet);
  } else if (small_planes) {
    rows = RowCut(1, layout.images, layout.channels, layout.inner, packet);
  } else {
    planes = PlaneCut(layout, packet);
  }
  whole = (by_rows ? rows.lanes : layout.inner) % packet == 0;
}

void channel_moments(const ConstTensorView& x, const ChannelCut& cut, Pair* pairs) {
  if (cut.empty()) return;
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    dispatch_wide<T>(cut.whole, {x.data}, [&](auto wide) {
      if (cut.by_rows)
        detail::cuda::launch_early("channel_moments", x.device, grid_of(cut.rows.blocks()), kNormThreads, 0,
                                   row_moments<T, wide()>, x.as<T>(), cut.rows, pairs);
      else
        detail::cuda::launch_early("channel_moments", x.device, grid_of(cut.planes.blocks()),
                                   cut.planes.block(), 0, plane_moments<T, wide()>, x.as<T>(), cut.planes,
                                   pairs);
    });
  });
}

}  // namespace lamella::cuda
