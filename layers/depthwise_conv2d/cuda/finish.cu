#include <type_traits>
#include <utility>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "layers/depthwise_conv2d/cuda/cut_hooks.h"
#include "layers/depthwise_conv2d/cuda/problem.h"

namespace lamella::cuda::depthwise {
namespace {

constexpr unsigned kThreads = 256, kWarp = 32;

struct Destination {
  void* data;
  DType dtype;
  bool add;
  std::int64_t channel, row, column;  ///< strides

  __device__ void write(std::int64_t at, double value) const {
    if (add) value += detail::cuda::load_number<double>(dtype, data, at);
    detail::cuda::store_number(dtype, value, data, at);
  }
};

/// A warp adds up the parts of one sum.
template <class C>
__global__ void add_parts(const C* sums, std::int64_t parts, std::int64_t channels, std::int64_t taps,
                          std::int64_t kernel_w, const Destination weight, const Destination bias) {
  detail::cuda::wait_for_stream();
  const std::int64_t warps = std::int64_t{gridDim.x} * (kThreads / kWarp);
  for (std::int64_t i = std::int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
       i < channels * (taps + 1); i += warps) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t part = threadIdx.x % kWarp; part < parts; part += kWarp)
      sum += static_cast<double>(sums[i * parts + part]);
    for (unsigned half = kWarp / 2; half > 0; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half);
    if (threadIdx.x % kWarp != 0) continue;
    const std::int64_t channel = i / (taps + 1), tap = i % (taps + 1);
    if (tap == taps) {
      if (bias.data != nullptr) bias.write(channel * bias.channel, sum);
    } else if (weight.data != nullptr) {
      weight.write(channel * weight.channel + tap / kernel_w * weight.row + tap % kernel_w * weight.column,
                   sum);
    }
  }
}

constexpr int kLanes = 32, kSlices = 16, kPartsAtOnce = 8;

/// The same for rows of sums, [part][channel][taps + 1], aligned to kSums of them: neighbouring threads have
/// neighbouring sums, kSums each (which divides `count`), and the slices of a block every so many-th part.
/// In the end thread y of a lane writes the y-th of its sums.
template <int kSums, int kSlicesOfBlock>
__global__ void __launch_bounds__(kLanes* kSlicesOfBlock)
    add_rows(const float* sums, std::int64_t parts, std::int64_t count, std::int64_t taps,
             std::int64_t kernel_w, const Destination weight, const Destination bias) {
  using Vector = std::conditional_t<kSums == 2, float2, float>;
  static_assert(sizeof(Vector) == kSums * sizeof(float) && kSums <= kSlicesOfBlock);
  __shared__ double slices[kSlicesOfBlock][kSums][kLanes];
  const std::int64_t first = std::int64_t{blockIdx.x} * (kLanes * kSums) + threadIdx.x * kSums;
  // What it writes, divided while the parts are still being made.
  const std::int64_t i = first + threadIdx.y;
  const std::int64_t channel = i / (taps + 1), tap = i % (taps + 1), row = tap / kernel_w,
                     column = tap % kernel_w;
  detail::cuda::wait_for_stream();
  double sum[kSums] = {};
  if (first < count) {
#pragma unroll kPartsAtOnce
    for (std::int64_t part = threadIdx.y; part < parts; part += kSlicesOfBlock) {
      const Vector some = *reinterpret_cast<const Vector*>(sums + part * count + first);
      const float* const each = reinterpret_cast<const float*>(&some);
#pragma unroll
      for (int k = 0; k < kSums; ++k) sum[k] += static_cast<double>(each[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < kSums; ++k) slices[threadIdx.y][k][threadIdx.x] = sum[k];
  __syncthreads();
  if (threadIdx.y >= kSums || i >= count) return;
  double all = slices[0][threadIdx.y][threadIdx.x];
#pragma unroll
  for (int slice = 1; slice < kSlicesOfBlock; ++slice) all += slices[slice][threadIdx.y][threadIdx.x];
  if (tap == taps) {
    if (bias.data != nullptr) bias.write(channel * bias.channel, all);
  } else if (weight.data != nullptr) {
    weight.write(channel * weight.channel + row * weight.row + column * weight.column, all);
  }
}

/// What a thread makes of parts, whole or of a chunk of them: of Moments, by Chan et al.'s formula for all of
/// them at once, with the first part's mean as what means are measured from.
struct MomentSums {
  static constexpr int kFloats = lamella::depthwise::kMomentFloats;
  double count = 0, sum = 0, squares = 0, pivot = 0;

  __device__ void begin(const float* first) { pivot = static_cast<double>(first[1]); }
  __device__ void add(const float* part) {
    const double number = static_cast<double>(part[0]), apart = static_cast<double>(part[1]) - pivot;
    count += number;
    sum += number * apart;
    squares += static_cast<double>(part[2]) + number * apart * apart;
  }
  __device__ void add(const MomentSums& other) {
    count += other.count, sum += other.sum, squares += other.squares;
  }
  __device__ double mean() const { return count > 0 ? pivot + sum / count : 0; }
  __device__ double apart() const { return count > 0 ? max(squares - sum * (sum / count), 0.0) : 0; }
  __device__ void keep(float* part) const {
    part[0] = static_cast<float>(count), part[1] = static_cast<float>(mean());
    part[2] = static_cast<float>(apart());
  }
  __device__ void write(std::int64_t channel, const HookResults& to) const {
    to.mean[channel] = static_cast<float>(mean());
    to.variance[channel] = count > 0 ? static_cast<float>(apart() / count) : 0.0f;
  }
};
struct NormSumSums {
  static constexpr int kFloats = lamella::depthwise::kNormSumFloats;
  double sum = 0, product = 0;

  __device__ void begin(const float*) {}
  __device__ void add(const float* part) {
    sum += static_cast<double>(part[0]), product += static_cast<double>(part[1]);
  }
  __device__ void add(const NormSumSums& other) { sum += other.sum, product += other.product; }
  __device__ void keep(float* part) const {
    part[0] = static_cast<float>(sum), part[1] = static_cast<float>(product);
  }
  __device__ void write(std::int64_t channel, const HookResults& to) const {
    to.sum[channel] = static_cast<float>(sum), to.product[channel] = static_cast<float>(product);
  }
};

/// Merges [part][channel] of a hook, threads as in add_rows(); blocks side by side (y) have a chunk of the
/// parts each, and keep it as one of `chunks`, unless there is one.
template <class Sums>
__global__ void __launch_bounds__(kLanes* kSlices)
    merge_parts(const float* parts, std::int64_t count, std::int64_t of_chunk, std::int64_t channels,
                float* chunks, const HookResults to) {
  detail::cuda::wait_for_stream();
  __shared__ Sums slices[kSlices][kLanes];
  const std::int64_t channel = std::int64_t{blockIdx.x} * kLanes + threadIdx.x;
  const std::int64_t begin = blockIdx.y * of_chunk, end = min(count, begin + of_chunk);
  Sums sums;
  if (channel < channels && count > 0) {
    sums.begin(parts + channel * Sums::kFloats);
#pragma unroll 4
    for (std::int64_t part = begin + threadIdx.y; part < end; part += kSlices)
      sums.add(parts + (part * channels + channel) * Sums::kFloats);
  }
  slices[threadIdx.y][threadIdx.x] = sums;
  __syncthreads();
  if (threadIdx.y > 0 || channel >= channels) return;
#pragma unroll
  for (int slice = 1; slice < kSlices; ++slice) sums.add(slices[slice][threadIdx.x]);
  if (gridDim.y > 1)
    sums.keep(chunks + (blockIdx.y * channels + channel) * Sums::kFloats);
  else
    sums.write(channel, to);
}

template <class Sums>
void launch_merge(float* parts, std::int64_t count, std::int64_t channels, Device device,
                  const HookResults& to) {
  const dim3 threads(kLanes, kSlices);
  const auto blocks = static_cast<unsigned>((channels + kLanes - 1) / kLanes);
  if (const std::int64_t wanted = lamella::depthwise::hook_chunks(count); wanted > 0) {
    const std::int64_t of_chunk = (count + wanted - 1) / wanted, chunks = (count + of_chunk - 1) / of_chunk;
    float* const kept = parts + count * channels * Sums::kFloats;
    detail::cuda::launch_early("depthwise_conv2d", device, dim3(blocks, static_cast<unsigned>(chunks)),
                               threads, 0, merge_parts<Sums>, parts, count, of_chunk, channels, kept, to);
    parts = kept, count = chunks;
  }
  detail::cuda::launch_early("depthwise_conv2d", device, dim3(blocks), threads, 0, merge_parts<Sums>, parts,
                             count, count, channels, parts, to);
}

std::pair<Destination, Destination> destinations(const Parts& to) {
  Destination weight{}, bias{};
  if (to.weight.data != nullptr)
    weight = {to.weight.data,       to.weight.dtype,      to.add_weight,
              to.weight.strides[0], to.weight.strides[2], to.weight.strides[3]};
  if (to.bias.data != nullptr) bias = {to.bias.data, to.bias.dtype, to.add_bias, to.bias.strides[0], 0, 0};
  return {weight, bias};
}

template <class C>
void launch_finish(const void* sums, std::int64_t parts, const Parts& to) {
  const auto [weight, bias] = destinations(to);
  const std::int64_t taps = to.kernel.h * to.kernel.w;
  detail::cuda::launch_early("depthwise_conv2d_backward_weight", to.device,
                             detail::cuda::blocks_for(to.channels * (taps + 1), kThreads / kWarp), kThreads,
                             0, add_parts<C>, static_cast<const C*>(sums), parts, to.channels, taps,
                             to.kernel.w, weight, bias);
}

}  // namespace

void finish_parts(const void* sums, std::int64_t parts, DType dtype, const Parts& to) {
  if (to.weight.data == nullptr && to.bias.data == nullptr) return;
  if (dtype == DType::Float64)
    launch_finish<double>(sums, parts, to);
  else
    launch_finish<float>(sums, parts, to);
}

void finish_rows(const float* sums, std::int64_t parts, const Parts& to) {
  // On an H200 two sums a thread are up to 0.8 us faster for more than some 8,000 sums; eight slices are for
  // fewer of many parts, as long as each thread asks for all of its own at once.
  constexpr std::int64_t kManySums = 8192, kManyParts = 48;
  constexpr int kFewSlices = 8;
  const auto [weight, bias] = destinations(to);
  const std::int64_t taps = to.kernel.h * to.kernel.w, count = to.channels * (taps + 1);
  const auto launch = [&, weight = weight, bias = bias](auto kernel, int of_thread, int of_block) {
    const std::int64_t blocks = (count + kLanes * of_thread - 1) / (kLanes * of_thread);
    detail::cuda::launch_early("depthwise_conv2d_backward_weight", to.device,
                               dim3(static_cast<unsigned>(blocks)),
                               dim3(kLanes, static_cast<unsigned>(of_block)), 0, kernel, sums, parts, count,
                               taps, to.kernel.w, weight, bias);
  };
  if (count > kManySums && count % 2 == 0)
    launch(add_rows<2, kSlices>, 2, kSlices);
  else if (count <= kManySums && parts >= kManyParts && parts <= kFewSlices * kPartsAtOnce)
    launch(add_rows<1, kFewSlices>, 1, kFewSlices);
  else
    launch(add_rows<1, kSlices>, 1, kSlices);
}

void finish_statistics(float* parts, std::int64_t count, std::int64_t channels, Device device,
                       const HookResults& to) {
  launch_merge<MomentSums>(parts, count, channels, device, to);
}

void finish_norm_sums(float* parts, std::int64_t count, std::int64_t channels, Device device,
                      const HookResults& to) {
  launch_merge<NormSumSums>(parts, count, channels, device, to);
}

}  // namespace lamella::cuda::depthwise
