#include <algorithm>
#include <type_traits>

#include "core/workspace.h"
#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/left_parts.cuh"
#include "layers/norm/cuda/parameters.cuh"
#include "layers/norm/cuda/streams.cuh"

namespace lamella::cuda {

using detail::NormParameterGradients;

namespace {

/// Where a gradient of a parameter goes.
struct ParameterGradient {
  ParameterGradient(const TensorView& view, GradientWrite write)
      : data(view.data),
        stride(view.data != nullptr ? view.strides[0] : 0),
        dtype(view.dtype),
        add(write == GradientWrite::Accumulate) {}
  __device__ BegunNumber load(std::int64_t channel) const {
    return add && data != nullptr ? BegunNumber::load(dtype, data, channel * stride) : BegunNumber::of(0);
  }
  __device__ void write(std::int64_t channel, BegunNumber before, double value) const {
    if (data == nullptr) return;
    if (add) value += before.value();
    detail::cuda::store_number(dtype, value, data, channel * stride);
  }

  void* data;
  std::int64_t stride;
  DType dtype;
  bool add;
};

/// From the sums of a channel its parameters' gradients and the factors of dx.
template <class C>
struct BatchGradient {
  const double* statistics;
  ChannelNumbers weight;
  std::int64_t channels;
  double count, share;  ///< values of a channel, and 1 / count, which no kernel has to wait for
  bool training;
  ParameterGradient grad_weight, grad_bias;
  C* factors;

  struct Before {
    double mean, inverse;
    BegunNumber weight, grad_weight, grad_bias;
  };
  /// `writes`: this thread is the one that writes the parameters' gradients.
  __device__ Before load(std::int64_t c, bool writes = true) const {
    return {statistics[c], statistics[channels + c], weight.load(c),
            writes ? grad_weight.load(c) : BegunNumber::of(0),
            writes ? grad_bias.load(c) : BegunNumber::of(0)};
  }
  /// dx = a · g + p · (x − center) + q.
  struct Factors {
    C a, p, q, center;
  };
  __device__ Factors factors_of(const Before& before, Pair pair) const {
    const double mean = before.mean, inverse = before.inverse;
    const double center = static_cast<C>(mean), sum = pair.x;
    const double product = product_of(before, pair);
    const double a = before.weight.value() * inverse;
    const double p = training ? -a * product * inverse * share : 0, q = training ? -a * sum * share : 0;
    return {static_cast<C>(a), static_cast<C>(p), static_cast<C>(q + p * (center - mean)),
            static_cast<C>(center)};
  }
  __device__ void write_parameters(std::int64_t c, const Before& before, Pair pair) const {
    grad_weight.write(c, before.grad_weight, product_of(before, pair));
    // Weight and bias may be one tensor.
    grad_bias.write(c, grad_bias.data == grad_weight.data ? grad_bias.load(c) : before.grad_bias, pair.x);
  }
  __device__ void operator()(std::int64_t c, const Before& before, Pair pair) const {
    write_parameters(c, before, pair);
    if (count == 0) return;
    const Factors of = factors_of(before, pair);
    factors[c] = of.a;
    factors[channels + c] = of.p;
    factors[2 * channels + c] = of.q;
    factors[3 * channels + c] = of.center;
  }

 private:
  /// Σ g · x̂.
  __device__ double product_of(const Before& before, Pair pair) const {
    const double center = static_cast<C>(before.mean);
    return count > 0 ? (pair.y + (center - before.mean) * pair.x) * before.inverse : 0;
  }
};

/// dx = a · g + p · (x − center) + q.
template <class T>
struct FactorsFormula {
  using C = detail::ComputeType<T>;
  static constexpr bool kReadsGradient = true;
  using Lane = typename BatchGradient<C>::Factors;
  __device__ C operator()(const Lane& lane, C g, C x) const {
    return lane.a * g + (lane.p * (x - lane.center) + lane.q);
  }
};

// dx and the parameters' gradients in one launch, for tensors that would take longer over another than over
// some work done again by every block.

/// Where sums were left in few parts: every block adds them up for its channels and makes the factors, its
/// rows on their way meanwhile.
template <class T>
struct LeftCut {
  static constexpr int kSize = Numbers<T>::kSize, kAcross = 8, kDown = kNormThreads / kAcross;
  static constexpr int kTile = kAcross * kSize;  ///< channels of a block
  static constexpr int kSlices = kNormThreads / kTile;
  static constexpr std::int64_t kRows = kDown * kBatch;
  /// Parts that a block adds up, and that all blocks do together: the latter keep a cache busy for a
  /// microsecond.
  static constexpr std::int64_t kMostParts = 64, kMostOfAll = 8192;

  LeftCut(std::int64_t rows, std::int64_t channels)
      : rows(rows),
        tiles(static_cast<unsigned>((channels + kTile - 1) / kTile)),
        blocks((rows + kRows - 1) / kRows * tiles) {}
  bool is_for(std::int64_t parts) const { return parts <= kMostParts && parts * blocks <= kMostOfAll; }

  std::int64_t rows;
  unsigned tiles;
  std::int64_t blocks;
};

template <class T, class Parts>
__global__ void __launch_bounds__(kNormThreads, 2)
    gradient_of_left(const Streams<T> streams, const LeftCut<T> cut, const Parts parts,
                     const BatchGradient<detail::ComputeType<T>> gradient) {
  using Cut = LeftCut<T>;
  using Formula = FactorsFormula<T>;
  constexpr int kSize = Cut::kSize;
  __shared__ Pair sums[Cut::kSlices][Cut::kTile];
  __shared__ typename Formula::Lane shared[Cut::kTile];
  const unsigned part = blockIdx.x / cut.tiles, tile = blockIdx.x - part * cut.tiles;
  const std::int64_t first = std::int64_t{tile} * Cut::kTile, channels = gradient.channels;
  const unsigned x = threadIdx.x % Cut::kAcross, y = threadIdx.x / Cut::kAcross;
  const std::int64_t lane = first + x * kSize, row = part * Cut::kRows + y;
  const auto exists = [&](unsigned u) { return lane < channels && row + u * Cut::kDown < cut.rows; };
  const auto at = [&](unsigned u) { return (row + u * Cut::kDown) * channels + lane; };
  detail::cuda::wait_for_stream();

  const unsigned mine = threadIdx.x % Cut::kTile, slice = threadIdx.x / Cut::kTile;
  const std::int64_t channel = first + mine;
  const bool finishes = slice == 0 && channel < channels;
  typename BatchGradient<detail::ComputeType<T>>::Before before = {};
  if (finishes) before = gradient.load(channel, part == 0);
  Packets<T> packets[kBatch];
#pragma unroll
  for (unsigned u = 0; u < kBatch; ++u)
    if (exists(u)) packets[u] = load_streams<true, T, Formula>(streams, at(u), kSize);
  SumsTally tally = SumsTally::around(0);
  if (channel < channels) {
#pragma unroll 8
    for (std::int64_t p = slice; p < parts.parts(); p += Cut::kSlices) tally.add(0, parts.pair(p, channel));
  }
  sums[slice][mine] = tally.result();
  __syncthreads();
  if (finishes) {
#pragma unroll
    for (int other = 1; other < Cut::kSlices; ++other) tally.add(0, sums[other][mine]);
    if (part == 0) gradient.write_parameters(channel, before, tally.result());
    shared[mine] = gradient.factors_of(before, tally.result());
  }
  __syncthreads();
  typename Formula::Lane lanes[kSize];
#pragma unroll
  for (int k = 0; k < kSize; ++k) lanes[k] = shared[x * kSize + k];
#pragma unroll
  for (unsigned u = 0; u < kBatch; ++u)
    if (exists(u)) write_packet<true, 1>(streams, packets[u], at(u), kSize, Formula(), lanes);
}

/// Adds up each of kCount numbers over the lanes of a warp; lane l then has number l / (32 / kCount). A
/// recursion, so that all indices are known and the numbers stay in registers.
template <int kCount, int kDistance = 16>
__device__ double over_warp(const double (&numbers)[kCount]) {
  if constexpr (kDistance == 0) {
    return numbers[0];
  } else {
    constexpr int kHalf = kCount > 1 ? kCount / 2 : 1;  // of the numbers left, the other lane takes the rest
    const bool upper = kCount > 1 && (threadIdx.x & kDistance) != 0;
    double half[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const double first = numbers[i], second = numbers[(i + kHalf) % kCount];
      half[i] = (upper ? second : first) + __shfl_xor_sync(0xffffffffu, upper ? first : second, kDistance);
    }
    return over_warp<kHalf, kDistance / 2>(half);
  }
}

/// Where nobody left sums, and a block can hold all rows of the channels of a packet.
constexpr int kRowsThreads = 512;
constexpr std::int64_t kMostRows = kRowsThreads * kBatch;

template <class T, bool kWide>
__global__ void __launch_bounds__(kRowsThreads)
    gradient_at_once(const Streams<T> streams, int rows,
                     const BatchGradient<detail::ComputeType<T>> gradient) {
  using C = detail::ComputeType<T>;
  using Formula = FactorsFormula<T>;
  constexpr int kSize = Numbers<T>::kSize;
  __shared__ double sums[kRowsThreads / 32][2 * kSize];
  __shared__ typename Formula::Lane shared[kSize];
  const std::int64_t first = std::int64_t{blockIdx.x} * kSize;
  const int mine = static_cast<int>(threadIdx.x),
            valid = static_cast<int>(min(std::int64_t{kSize}, gradient.channels - first));
  const auto exists = [&](unsigned u) { return mine + u * blockDim.x < static_cast<unsigned>(rows); };
  const auto at = [&](unsigned u) { return std::int64_t{mine + u * blockDim.x} * gradient.channels + first; };
  detail::cuda::wait_for_stream();

  typename BatchGradient<C>::Before before = {};
  if (mine < valid) before = gradient.load(first + mine);
  Packets<T> packets[kBatch];
#pragma unroll
  for (unsigned u = 0; u < kBatch; ++u)
    if (exists(u)) packets[u] = load_streams<kWide, T, Formula>(streams, at(u), valid);
  C center[kSize] = {}, sum[kSize] = {}, product[kSize] = {};
#pragma unroll
  for (int k = 0; k < kSize; ++k)
    if (k < valid) center[k] = static_cast<C>(gradient.statistics[first + k]);
#pragma unroll
  for (unsigned u = 0; u < kBatch; ++u) {
    if (!exists(u)) continue;
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      sum[k] += packets[u].g.at(k);
      product[k] += packets[u].g.at(k) * (packets[u].x.at(k) - center[k]);
    }
  }
  double numbers[2 * kSize];
#pragma unroll
  for (int k = 0; k < kSize; ++k)
    numbers[k] = static_cast<double>(sum[k]), numbers[kSize + k] = static_cast<double>(product[k]);
  const double of_warp = over_warp(numbers);
  constexpr int kLanesOfNumber = 32 / (2 * kSize);
  if (mine % kLanesOfNumber == 0) sums[mine / 32][mine % 32 / kLanesOfNumber] = of_warp;
  __syncthreads();
  if (mine < valid) {
    SumsTally tally = SumsTally::around(0);
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp)
      tally.add(0, {sums[warp][mine], sums[warp][kSize + mine]});
    gradient.write_parameters(first + mine, before, tally.result());
    shared[mine] = gradient.factors_of(before, tally.result());
  }
  __syncthreads();
  typename Formula::Lane lanes[kSize] = {};
#pragma unroll
  for (int k = 0; k < kSize; ++k)
    if (k < valid) lanes[k] = shared[k];
#pragma unroll
  for (unsigned u = 0; u < kBatch; ++u)
    if (exists(u)) write_packet<kWide, 1>(streams, packets[u], at(u), valid, Formula(), lanes);
}

/// One of the two; false, with nothing done, where neither is for a tensor: of more rows, or of more parts or
/// not whole packets of channels where sums were left; of planes; in float64.
template <class C>
bool gradient_of_small(const ConstTensorView& grad, const ConstTensorView& x, const ChannelCut& cut,
                       const ConstTensorView& known, const TensorView& dx, GradientWrite write,
                       const BatchGradient<C>& gradient) {
  if (cut.empty() || !cut.by_rows || cut.rows.each != 1 || cut.rows.segments != 1) return false;
  const std::int64_t rows = cut.rows.rows;
  bool done = false;
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<ComputeType<T>, C> && !std::is_same_v<T, double>) {
      const Streams<T> streams{grad.as<T>(), x.as<T>(), dx.as<T>(), write == GradientWrite::Accumulate};
      dispatch_wide<T>(cut.whole, {grad.data, x.data, dx.data}, [&](auto wide) {
        if (known.data == nullptr) {
          if (rows > kMostRows) return;
          const auto threads =
              static_cast<unsigned>(std::min<std::int64_t>((rows + 31) / 32 * 32, kRowsThreads));
          detail::cuda::launch_early("batch_norm_backward", dx.device,
                                     grid_of((gradient.channels + Numbers<T>::kSize - 1) / Numbers<T>::kSize),
                                     threads, 0, gradient_at_once<T, wide()>, streams, static_cast<int>(rows),
                                     gradient);
          done = true;
        } else if constexpr (wide()) {
          const LeftCut<T> left(rows, gradient.channels);
          if (!left.is_for(known.shape[0])) return;
          const auto run = [&](auto number) {
            using Parts = LeftView<decltype(number)>;
            detail::cuda::launch_early("batch_norm_backward", dx.device, grid_of(left.blocks), kNormThreads,
                                       0, gradient_of_left<T, Parts>, streams, left, Parts(known, 0, 0),
                                       gradient);
          };
          known.dtype == DType::Float64 ? run(double()) : run(float());
          done = true;
        }
      });
    }
  });
  return done;
}

}  // namespace

void batch_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         const ConstTensorView& statistics, const ConstTensorView& weight, bool training,
                         const ConstTensorView& known, const NormParameterGradients& parameters,
                         const TensorView& dx, GradientWrite write, const ActivationSlope& slope) {
  const ChannelCut cut(layout, x.dtype);
  // What left the sums has gone back through the activation.
  detail::ActivationSlope rest = slope;
  if (known.data != nullptr) rest.activation = detail::PendingActivation::None;
  detail::dispatch_compute_floating(x.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const detail::Workspace factors(x.device, 4 * layout.channels * static_cast<std::int64_t>(sizeof(C)));
    const auto count = static_cast<double>(layout.count());
    const BatchGradient<C> done{statistics.as<double>(),
                                ChannelNumbers(weight, 1),
                                layout.channels,
                                count,
                                count > 0 ? 1 / count : 0,
                                training,
                                {parameters.weight, parameters.weight_write},
                                {parameters.bias, parameters.bias_write},
                                factors.as<C>()};
    if (dx.data != nullptr && rest.activation == detail::PendingActivation::None &&
        gradient_of_small(grad, x, cut, known, dx, write, done))
      return;
    if (known.data != nullptr) {
      finish_left<SumsTally>("batch_norm_backward", known, 0, 0, done);
    } else {
      // Both passes go back through the activation themselves, so that nothing has to lie in slope.passed.
      const detail::Workspace pairs(x.device, cut.pair_bytes());
      channel_products(grad, x, cut, Means{statistics.as<double>()}, slope, pairs.as<Pair>());
      finish_parts<SumsTally>("batch_norm_backward", x.device, pairs.as<Pair>(), cut.counts(),
                              layout.channels, done);
    }
    if (dx.data != nullptr) channel_gradient(grad, x, cut, factors.as<C>(), rest, dx, write);
  });
}

}  // namespace lamella::cuda
