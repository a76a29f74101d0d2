#include <algorithm>
#include <bit>

#include "core/workspace.h"
#include "layers/pool/cuda/global_average.h"
#include "layers/pool/cuda/pooling.cuh"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::Pool2dGeometry;
using detail::TensorView;
using detail::Workspace;

namespace {

/// Where sums go: averages, or one sum per part of a plane.
template <class T>
struct Sums {
  T* average;       ///< null: to `partial`
  double* partial;  ///< [outer][parts][inner]
  std::int64_t parts, inner, plane;

  /// Output outer · inner + i.
  __device__ void store(std::int64_t outer, std::int64_t part, std::int64_t i, double sum) const {
    if (average != nullptr)
      average[outer * inner + i] =
          detail::cuda::from_compute<T>(static_cast<ComputeType<T>>(sum / static_cast<double>(plane)));
    else
      partial[(outer * parts + part) * inner + i] = sum;
  }
};

template <class T>
__global__ void add_parts(const double* partial, std::int64_t parts, std::int64_t inner, std::int64_t outputs,
                          std::int64_t plane, T* average) {
  detail::cuda::wait_for_stream();
  for_each_item<std::int64_t>(outputs, [&](std::int64_t output) {
    const double* from = partial + output / inner * parts * inner + output % inner;
    double sum = 0;
    for (std::int64_t part = 0; part < parts; ++part) sum += from[part * inner];
    average[output] =
        detail::cuda::from_compute<T>(static_cast<ComputeType<T>>(sum / static_cast<double>(plane)));
  });
}

// ---- Planes ----

/// Bytes of small planes that a block copies at a time.
constexpr int kStaged = 16384;
/// Largest plane, of any type, of which a packet fits there.
constexpr std::int64_t kSmallPlane = kStaged / 16;

/// A block copies `per_block` planes, a multiple of a packet's size, in one run; then some neighbouring lanes
/// of a warp add up each.
template <class T>
__global__ void __launch_bounds__(kPoolThreads)
    average_small_planes(const T* x, int plane, std::int64_t planes, int per_block, int lanes, bool aligned,
                         T* y) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  constexpr int kSize = Packet<T>::kSize;
  __shared__ Packet<float> memory[kStaged / 16];
  const int thread = static_cast<int>(threadIdx.x);
  T* const staged = reinterpret_cast<T*>(memory);
  for (std::int64_t first = std::int64_t{blockIdx.x} * per_block; first < planes;
       first += std::int64_t{gridDim.x} * per_block) {
    const int count = static_cast<int>(min(std::int64_t{per_block}, planes - first));
    const T* const from = x + first * plane;
    const int packets = aligned ? count * plane / kSize : 0;
#pragma unroll 4
    for (int i = thread; i < packets; i += kPoolThreads)
      reinterpret_cast<Packet<T>*>(staged)[i] = reinterpret_cast<const Packet<T>*>(from)[i];
    for (int i = packets * kSize + thread; i < count * plane; i += kPoolThreads) staged[i] = from[i];
    __syncthreads();
    const int lane = thread % lanes, together = kPoolThreads / lanes;
    for (int base = 0; base < count; base += together) {  // alike for all threads: they shuffle
      const int p = base + thread / lanes;
      C chain = 0;
      if (p < count)
        for (int i = lane; i < plane; i += lanes) chain += detail::cuda::to_compute(staged[p * plane + i]);
      double sum = static_cast<double>(chain);
      for (int half = lanes / 2; half > 0; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half, lanes);
      if (p < count && lane == 0)
        y[first + p] = detail::cuda::from_compute<T>(static_cast<C>(sum / static_cast<double>(plane)));
    }
    __syncthreads();
  }
}

/// A block adds up one part of a plane: packets of it, the same ones whether they can be loaded whole or not.
template <class T>
__global__ void __launch_bounds__(kPoolThreads)
    sum_large_planes(const T* x, std::int64_t planes, std::int64_t length, bool aligned, const Sums<T> sums) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  constexpr int kSize = Packet<T>::kSize, kWarps = kPoolThreads / 32;
  __shared__ double shared[kWarps];
  for (std::int64_t item = blockIdx.x; item < planes * sums.parts; item += gridDim.x) {
    const std::int64_t p = item / sums.parts, part = item % sums.parts;
    const T* const from = x + p * sums.plane + part * length;
    const std::int64_t n = min(length, sums.plane - part * length), packets = n / kSize;
    double total = 0;
#pragma unroll 4
    for (std::int64_t i = threadIdx.x; i < packets; i += kPoolThreads) {
      Packet<T> packet;
      if (aligned) {
        packet = reinterpret_cast<const Packet<T>*>(from)[i];
      } else {
#pragma unroll
        for (int k = 0; k < kSize; ++k) packet.at[k] = from[i * kSize + k];
      }
      C chain = 0;
#pragma unroll
      for (int k = 0; k < kSize; ++k) chain += detail::cuda::to_compute(packet.at[k]);
      total += static_cast<double>(chain);
    }
    const std::int64_t last = packets * kSize + threadIdx.x;
    if (last < n) total += static_cast<double>(detail::cuda::to_compute(from[last]));
    for (int half = 16; half > 0; half /= 2) total += __shfl_down_sync(0xffffffffu, total, half);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int warp = 1; warp < kWarps; ++warp) total += shared[warp];
      sums.store(p, part, 0, total);
    }
    __syncthreads();
  }
}

template <class T, class I, int V>
__global__ void __launch_bounds__(kPoolThreads)
    spread_over_planes(const T* grad, const Extent<I> plane, std::int64_t items, T* dx, bool accumulate) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  for_each_item<I>(items, [&](I item) {
    I p = item * V;
    I at = take(plane, p);
    const C size = static_cast<C>(plane.size());
    C share = detail::cuda::to_compute(grad[p]) / size;
    C values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (v > 0 && ++at == plane.size()) {
        at = 0;
        share = detail::cuda::to_compute(grad[++p]) / size;
      }
      values[v] = share;
    }
    write_lot<T, V>(values, dx, item, accumulate);
  });
}

// ---- Pixels ----

/// Threads of a block: x over lots of channels, y over pixels of a part.
template <class T, int V>
__global__ void __launch_bounds__(kPoolThreads)
    sum_pixels(const T* x, std::int64_t batch, std::int64_t lots, std::int64_t length, const Sums<T> sums) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  constexpr int kChain = 64;  // additions in the compute type, one after the other
  __shared__ double shared[V * kPoolThreads];
  const int at = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x), across = blockDim.x;
  const std::int64_t down = blockDim.y, groups = (lots + across - 1) / across;
  for (std::int64_t item = blockIdx.x; item < batch * groups * sums.parts; item += gridDim.x) {
    const std::int64_t lot = item % groups * across + threadIdx.x, part = item / groups % sums.parts,
                       n = item / (groups * sums.parts);
    const std::int64_t end = min(sums.plane, (part + 1) * length);
    double total[V] = {};
    if (lot < lots) {
      const T* const from = x + n * sums.plane * lots * V;
      for (std::int64_t pixel = part * length + threadIdx.y; pixel < end;) {
        C chain[V] = {};
        const std::int64_t stop = min(end, pixel + kChain * down);
#pragma unroll 4
        for (; pixel < stop; pixel += down) {
          const Lot<T, V> numbers = load_lot<T, V>(from, pixel * lots + lot);
#pragma unroll
          for (int v = 0; v < V; ++v) chain[v] += detail::cuda::to_compute(numbers.at[v]);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) total[v] += static_cast<double>(chain[v]);
      }
    }
#pragma unroll
    for (int v = 0; v < V; ++v) shared[v * kPoolThreads + at] = total[v];
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.y < half)
#pragma unroll
        for (int v = 0; v < V; ++v)
          shared[v * kPoolThreads + at] += shared[v * kPoolThreads + at + half * across];
    }
    if (threadIdx.y == 0 && lot < lots)
#pragma unroll
      for (int v = 0; v < V; ++v) sums.store(n, part, lot * V + v, shared[v * kPoolThreads + at]);
    __syncthreads();
  }
}

template <class T, class I, int V>
__global__ void __launch_bounds__(kPoolThreads)
    spread_over_pixels(const T* grad, const Extent<I> lots, const Extent<I> plane, std::int64_t items, T* dx,
                       bool accumulate) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  for_each_item<I>(items, [&](I item) {
    I pixel = item;
    const I lot = take(lots, pixel), image = plane.divide(pixel);
    const Lot<T, V> numbers = load_lot<T, V>(grad, image * lots.size() + lot);
    const C size = static_cast<C>(plane.size());
    C values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = detail::cuda::to_compute(numbers.at[v]) / size;
    write_lot<T, V>(values, dx, item, accumulate);
  });
}

// ---- Launches ----

/// Blocks that keep a GPU busy, whichever it is: the cut must not depend on that.
constexpr std::int64_t kWantedBlocks = 1024;

/// Calls body(sums) with where the kernel shall write; then adds up the parts, if there are several.
template <class T, class Body>
void with_parts(const TensorView& y, std::int64_t parts, std::int64_t inner, std::int64_t plane,
                const Body& body) {
  const std::int64_t outputs = y.numel();
  const Workspace partial(y.device,
                          parts == 1 ? 0 : outputs * parts * static_cast<std::int64_t>(sizeof(double)));
  body(Sums<T>{parts == 1 ? y.as<T>() : nullptr, partial.as<double>(), parts, inner, plane});
  if (parts > 1)
    detail::cuda::launch_early("global average", y.device, detail::cuda::blocks_for(outputs, kPoolThreads),
                               kPoolThreads, 0, add_parts<T>, partial.as<double>(), parts, inner, outputs,
                               plane, y.as<T>());
}

template <class T>
void average_planes(const ConstTensorView& x, std::int64_t plane, const TensorView& y) {
  constexpr std::int64_t kSize = Packet<T>::kSize;
  const std::int64_t planes = y.numel();
  const bool aligned = is_aligned(x.data);
  if (plane <= kSmallPlane) {
    const std::int64_t most = kStaged / static_cast<std::int64_t>(sizeof(T)) / plane / kSize * kSize;
    const std::int64_t wanted = (planes / kWantedBlocks + kSize - 1) / kSize * kSize;
    const std::int64_t per_block = std::clamp<std::int64_t>(wanted, kSize, most);
    const int lanes = static_cast<int>(
        std::min<std::uint64_t>(32, std::bit_ceil(static_cast<std::uint64_t>((plane + 7) / 8))));
    detail::cuda::launch_early("global average", y.device,
                               detail::cuda::blocks_for(planes, static_cast<int>(per_block)), kPoolThreads, 0,
                               average_small_planes<T>, x.as<T>(), static_cast<int>(plane), planes,
                               static_cast<int>(per_block), lanes, aligned, y.as<T>());
    return;
  }
  constexpr std::int64_t kLeastLength = 16384;
  const std::int64_t most = (plane + kLeastLength - 1) / kLeastLength;
  const std::int64_t count = std::clamp<std::int64_t>(kWantedBlocks / planes, 1, most);
  const std::int64_t length = ((plane + count - 1) / count + kSize - 1) / kSize * kSize;
  const std::int64_t parts = (plane + length - 1) / length;
  with_parts<T>(y, parts, 1, plane, [&](const Sums<T>& sums) {
    detail::cuda::launch_early("global average", y.device, detail::cuda::blocks_for(planes * parts, 1),
                               kPoolThreads, 0, sum_large_planes<T>, x.as<T>(), planes, length,
                               aligned && plane % kSize == 0, sums);
  });
}

template <class T, int V>
void average_pixels(const ConstTensorView& x, const Pool2dGeometry& g, const TensorView& y) {
  const std::int64_t plane = g.in.h * g.in.w, lots = g.channels / V;
  const auto across =
      static_cast<unsigned>(std::min<std::uint64_t>(32, std::bit_ceil(static_cast<std::uint64_t>(lots))));
  const unsigned down = kPoolThreads / across;
  const std::int64_t columns = g.batch * ((lots + across - 1) / across);
  constexpr std::int64_t kLeastChain = 8;
  const std::int64_t most = (plane + down * kLeastChain - 1) / (down * kLeastChain);
  const std::int64_t count = std::clamp<std::int64_t>(kWantedBlocks / columns, 1, most);
  const std::int64_t length = (plane + count - 1) / count, parts = (plane + length - 1) / length;
  with_parts<T>(y, parts, g.channels, plane, [&](const Sums<T>& sums) {
    detail::cuda::launch_early("global average", y.device, detail::cuda::blocks_for(columns * parts, 1),
                               dim3(across, down), 0, sum_pixels<T, V>, x.as<T>(), g.batch, lots, length,
                               sums);
  });
}

}  // namespace

bool is_global(const Pool2dGeometry& g) {
  const auto covers = [&](std::int64_t Size2::*axis) {
    const std::int64_t padding = g.padding.*axis;
    return g.adaptive || (g.kernel.*axis >= g.in.*axis + padding && (padding == 0 || !g.count_include_pad));
  };
  return g.out == Size2(1) && covers(&Size2::h) && covers(&Size2::w);
}

void global_average_forward(const ConstTensorView& x, const Pool2dGeometry& g, const TensorView& y) {
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kSize = Packet<T>::kSize;
    if (!g.channels_last)
      average_planes<T>(x, g.in.h * g.in.w, y);
    else if (g.channels % kSize == 0 && is_aligned(x.data))
      average_pixels<T, kSize>(x, g, y);
    else
      average_pixels<T, 1>(x, g, y);
  });
}

void global_average_backward(const ConstTensorView& grad, const Pool2dGeometry& g, const TensorView& dx,
                             GradientWrite write) {
  const std::int64_t total = dx.numel(), plane = g.in.h * g.in.w;
  const bool accumulate = write == GradientWrite::Accumulate;
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto spread = [&](auto index, auto size) {
      using I = decltype(index);
      constexpr int kLot = decltype(size)::value;
      const std::int64_t items = total / kLot;
      const unsigned blocks = detail::cuda::blocks_for(items, kPoolThreads);
      if (g.channels_last)
        detail::cuda::launch_early("global average backward", dx.device, blocks, kPoolThreads, 0,
                                   spread_over_pixels<T, I, kLot>, grad.as<T>(), Extent<I>(g.channels / kLot),
                                   Extent<I>(plane), items, dx.as<T>(), accumulate);
      else
        detail::cuda::launch_early("global average backward", dx.device, blocks, kPoolThreads, 0,
                                   spread_over_planes<T, I, kLot>, grad.as<T>(), Extent<I>(plane), items,
                                   dx.as<T>(), accumulate);
    };
    constexpr int kSize = Packet<T>::kSize;
    const bool in_lots =
        is_aligned(dx.data) &&
        (g.channels_last ? g.channels % kSize == 0 && is_aligned(grad.data) : total % kSize == 0);
    if (!fits_32_bits(g))
      spread(std::int64_t(), LotSize<1>());
    else if (in_lots)
      spread(std::int32_t(), LotSize<kSize>());
    else
      spread(std::int32_t(), LotSize<1>());
  });
}

}  // namespace lamella::cuda
