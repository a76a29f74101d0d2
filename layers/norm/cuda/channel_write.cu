#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/slopes.cuh"
#include "layers/norm/cuda/streams.cuh"

namespace lamella::cuda {

namespace {

/// dx = a · g + p · (x − center) + q.
template <class T, class Slope>
struct GradientFormula {
  using C = ComputeType<T>;
  static constexpr bool kReadsGradient = true;
  /// Without a slope there are fewer factors of a lane.
  static constexpr int kBlocksOfSm = std::is_same_v<Slope, NoSlope<C>> ? 3 : 2;
  /// q − p · center is one number: what float32 loses by that is below a rounding of sixteen bits.
  static constexpr bool kFolded = sizeof(T) == 2;
  struct Lane {
    C a, p, q, center, scale, shift;
  };

  const C* factors;
  std::int64_t statistics;
  SlopeFactors<C> of_slope;
  Slope slope;

  __device__ Lane lane(std::int64_t s, std::int64_t channel) const {
    Lane lane{factors[s],
              factors[statistics + s],
              factors[2 * statistics + s],
              factors[3 * statistics + s],
              of_slope.scale_of(channel),
              of_slope.shift_of(channel)};
    if (kFolded) lane.q -= lane.p * lane.center;
    return lane;
  }
  __device__ C operator()(const Lane& lane, C g, C x) const {
    return lane.a * slope(g, x * lane.scale + lane.shift) +
           (lane.p * (kFolded ? x : x - lane.center) + lane.q);
  }
};

/// y = (x − center) · scale + shift.
template <class C>
struct ApplyFormula {
  static constexpr bool kReadsGradient = false;
  static constexpr int kBlocksOfSm = 3;
  struct Lane {
    C center, scale, shift;
  };

  const C* factors;
  std::int64_t statistics;

  __device__ Lane lane(std::int64_t s, std::int64_t /*channel*/) const {
    return {factors[s], factors[statistics + s], factors[2 * statistics + s]};
  }
  __device__ C operator()(const Lane& lane, C /*g*/, C x) const {
    return (x - lane.center) * lane.scale + lane.shift;
  }
};

// Blocks go backwards: what the sums read last may still be in the cache.

template <class T, bool kWide, class Formula>
__global__ void __launch_bounds__(kNormThreads, Formula::kBlocksOfSm)
    write_rows(const Streams<T> streams, const RowCut cut, const Formula formula) {
  constexpr int kSize = Numbers<T>::kSize;
  const RowItem<kSize> item(cut, gridDim.x - 1 - blockIdx.x);
  detail::cuda::wait_for_stream();
  typename Formula::Lane lanes[kSize] = {};
#pragma unroll
  for (int k = 0; k < kSize; ++k) {
    if (item.count == 0 || k >= item.valid) continue;
    const std::int64_t lane = item.lane + k, channel = cut.each == 1 ? lane : lane / cut.each;
    lanes[k] = formula.lane(item.segment * cut.channels + channel, channel);
  }
  const auto at = [&](unsigned i) { return item.offset + i * item.step; };
  in_batches<Packets<T>>(
      item.count, [&](unsigned i) { return load_streams<kWide, T, Formula>(streams, at(i), item.valid); },
      [&](const Packets<T>& packets, unsigned i) {
        write_packet<kWide, 1>(streams, packets, at(i), item.valid, formula, lanes);
      });
}

template <class T, bool kWide, class Formula>
__global__ void __launch_bounds__(kNormThreads, 2)
    write_planes(const Streams<T> streams, const PlaneCut cut, const Formula formula) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Numbers<T>::kSize;
  PlaneItem<kSize> item(cut, gridDim.x - 1 - blockIdx.x);
  const typename Formula::Lane lane = formula.lane(item.statistic, item.channel);
  in_batches<PacketsAt<T>>(
      item.count,
      [&](unsigned) {
        PacketsAt<T> load;
        load.at = item.offset;
        load.valid = kWide ? kSize : item.valid();
        load.packets = load_streams<kWide, T, Formula>(streams, load.at, load.valid);
        item.advance();
        return load;
      },
      [&](const PacketsAt<T>& load, unsigned) {
        write_packet<kWide, 0>(streams, load.packets, load.at, load.valid, formula, &lane);
      });
}

template <class T, bool kWide, class Formula>
void write(const char* what, Device device, const ChannelCut& cut, const Streams<T>& streams,
           const Formula& formula) {
  if (cut.by_rows) {
    const RowCut rows = cut.rows.for_writing();
    detail::cuda::launch_early(what, device, grid_of(rows.blocks()), kNormThreads, 0,
                               write_rows<T, kWide, Formula>, streams, rows, formula);
  } else {
    detail::cuda::launch_early(what, device, grid_of(cut.planes.blocks()), cut.planes.block(), 0,
                               write_planes<T, kWide, Formula>, streams, cut.planes, formula);
  }
}

}  // namespace

void channel_gradient(const ConstTensorView& grad, const ConstTensorView& x, const ChannelCut& cut,
                      const void* factors, const ActivationSlope& slope, const TensorView& dx,
                      GradientWrite how) {
  if (cut.empty()) return;
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Streams<T> streams{grad.as<T>(), x.as<T>(), dx.as<T>(), how == GradientWrite::Accumulate};
    dispatch_wide<T>(cut.whole, {grad.data, x.data, dx.data}, [&](auto wide) {
      visit_slope<C, wide()>(slope.activation, [&](auto function) {
        const GradientFormula<T, decltype(function)> formula{
            static_cast<const C*>(factors), cut.layout.statistics(), SlopeFactors<C>(slope), function};
        write<T, wide()>("channel_gradient", dx.device, cut, streams, formula);
      });
    });
  });
}

void channel_apply(const ConstTensorView& x, const ChannelCut& cut, const void* factors,
                   const TensorView& y) {
  if (cut.empty()) return;
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Streams<T> streams{nullptr, x.as<T>(), y.as<T>(), false};
    const ApplyFormula<C> formula{static_cast<const C*>(factors), cut.layout.statistics()};
    dispatch_wide<T>(cut.whole, {x.data, y.data},
                     [&](auto wide) { write<T, wide()>("channel_apply", y.device, cut, streams, formula); });
  });
}

}  // namespace lamella::cuda
