#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "core/cuda/divisor.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/cuda/packet.cuh"
#include "tensor/cuda/index.cuh"
#include "tensor/view.h"

/// Elementwise kernels over any types and strides, with the interface of tensor/cpu/map.h. Operands that lie
/// alike, in one type, go sixteen bytes at a time; all others by index, an element at a time.
namespace lamella::cuda {

using detail::dispatch_compute;
using detail::dispatch_compute_floating;
using detail::cuda::Packet;

/// An operand of map_each(): a view, or a number that stands for a view that repeats it.
struct MapOperand {
  MapOperand(const detail::ConstTensorView& view) : view(view) {}
  MapOperand(const detail::TensorView& view) : view(view) {}
  explicit MapOperand(double number) : number(number) {}

  detail::ConstTensorView view;  ///< no data: a number
  double number = 0;
};
inline MapOperand repeat(double number, const detail::ConstTensorView& /*over*/) {
  return MapOperand(number);
}

template <class C, int N>
struct MapArguments {
  Index index;                           ///< of the merged axes
  std::int64_t stride[N + 1][kMaxAxes];  ///< of `out`, then of the inputs
  void* out;
  const void* in[N];  ///< null: a number
  C number[N];
  DType dtype[N + 1];
  bool accumulate;
};

template <class C, int N, class F, std::size_t... I>
__device__ C map_call(const F& f, const C (&in)[N], std::index_sequence<I...>) {
  return static_cast<C>(f(in[I]...));
}

template <class C, int N, class F>
__global__ void map_by_index(const MapArguments<C, N> args, const F f) {
  detail::cuda::wait_for_stream();
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < args.index.total; i += step) {
    std::int64_t offset[N + 1] = {};
    args.index.visit(i, [&](int axis, std::uint32_t at) {
#pragma unroll
      for (int n = 0; n <= N; ++n) offset[n] += at * args.stride[n][axis];
    });
    C in[N];
#pragma unroll
    for (int n = 0; n < N; ++n)
      in[n] = args.in[n] == nullptr
                  ? args.number[n]
                  : detail::cuda::load_number<C>(args.dtype[n + 1], args.in[n], offset[n + 1]);
    C value = map_call<C, N>(f, in, std::make_index_sequence<N>());
    if (args.accumulate) value += detail::cuda::load_number<C>(args.dtype[0], args.out, offset[0]);
    detail::cuda::store_number(args.dtype[0], value, args.out, offset[0]);
  }
}

template <class T, int N>
struct DenseArguments {
  T* out;
  const T* in[N];  ///< null: a number
  float number[N];
  std::int64_t total;
  bool accumulate;
};

template <class T, int N, class F>
__global__ void map_dense(const DenseArguments<T, N> args, const F f) {
  detail::cuda::wait_for_stream();
  using detail::cuda::from_compute;
  using detail::cuda::to_compute;
  constexpr int kSize = Packet<T>::kSize;
  const std::int64_t packets = args.total / kSize;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  const auto one = [&](const float(&in)[N], float before) {
    const float value = map_call<float, N>(f, in, std::make_index_sequence<N>());
    return args.accumulate ? value + before : value;
  };
  for (std::int64_t p = first; p < packets; p += step) {
    Packet<T> packet[N], out;
#pragma unroll
    for (int n = 0; n < N; ++n)
      if (args.in[n] != nullptr) packet[n] = reinterpret_cast<const Packet<T>*>(args.in[n])[p];
    if (args.accumulate) out = reinterpret_cast<const Packet<T>*>(args.out)[p];
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      float in[N];
#pragma unroll
      for (int n = 0; n < N; ++n)
        in[n] = args.in[n] != nullptr ? to_compute(packet[n].at[k]) : args.number[n];
      out.at[k] = from_compute<T>(one(in, args.accumulate ? to_compute(out.at[k]) : 0.0f));
    }
    reinterpret_cast<Packet<T>*>(args.out)[p] = out;
  }
  const std::int64_t i = packets * kSize + first;
  if (i >= args.total) return;
  float in[N];
#pragma unroll
  for (int n = 0; n < N; ++n) in[n] = args.in[n] != nullptr ? to_compute(args.in[n][i]) : args.number[n];
  args.out[i] = from_compute<T>(one(in, args.accumulate ? to_compute(args.out[i]) : 0.0f));
}

inline constexpr int kMapThreads = 256;

template <class T, class F, int N>
void launch_dense(const detail::TensorView& out, bool accumulate, const std::array<MapOperand, N>& in,
                  const F& f) {
  DenseArguments<T, N> args{};
  args.out = out.as<T>();
  args.total = out.numel();
  args.accumulate = accumulate;
  for (std::size_t n = 0; n < N; ++n) {
    args.in[n] = in[n].view.template as<T>();
    args.number[n] = static_cast<float>(in[n].number);
  }
  const std::int64_t packets = (args.total + Packet<T>::kSize - 1) / Packet<T>::kSize;
  detail::cuda::launch_early("map_dense", out.device, detail::cuda::blocks_for(packets, kMapThreads),
                             kMapThreads, 0, map_dense<T, N, F>, args, f);
}

/// True if all operands lie alike without gaps, from addresses that packets may have.
template <int N>
bool lies_alike(const detail::StridedPlan<N + 1>& plan, const detail::TensorView& out,
                const std::array<MapOperand, N>& in) {
  using detail::cuda::is_aligned;
  bool alike = plan.axes == 1 && plan.stride[0][0] == 1 && is_aligned(out.data);
  for (std::size_t n = 0; n < N; ++n)
    if (in[n].view.data != nullptr)
      alike =
          alike && plan.stride[n + 1][0] == 1 && in[n].view.dtype == out.dtype && is_aligned(in[n].view.data);
  return alike;
}

template <class T, int N>
struct RowArguments {
  T* out;
  const void* in[N];  ///< as `out` lies, or one row of floats for all
  bool repeats[N];
  std::int64_t packets;
  detail::cuda::Divisor row;  ///< packets
  bool accumulate;
};

/// Operands that lie alike, and rows of float32 that repeat: sixteen bytes of the result at a time.
template <class T, int N, class F>
__global__ void map_rows(const RowArguments<T, N> args, const F f) {
  detail::cuda::wait_for_stream();
  using detail::cuda::from_compute;
  using detail::cuda::to_compute;
  constexpr int kSize = Packet<T>::kSize;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t p = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; p < args.packets; p += step) {
    const auto at = static_cast<std::uint32_t>(p);
    const std::uint32_t in_row = at - args.row.divide(at) * args.row.value;
    alignas(16) float in[N][kSize];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (args.repeats[n]) {
#pragma unroll
        for (int k = 0; k < kSize; k += 4)
          *reinterpret_cast<float4*>(in[n] + k) =
              reinterpret_cast<const float4*>(args.in[n])[(in_row * kSize + k) / 4];
      } else {
        const Packet<T> packet = reinterpret_cast<const Packet<T>*>(args.in[n])[p];
#pragma unroll
        for (int k = 0; k < kSize; ++k) in[n][k] = to_compute(packet.at[k]);
      }
    }
    Packet<T> out;
    if (args.accumulate) out = reinterpret_cast<const Packet<T>*>(args.out)[p];
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      float one[N];
#pragma unroll
      for (int n = 0; n < N; ++n) one[n] = in[n][k];
      const float value = map_call<float, N>(f, one, std::make_index_sequence<N>());
      out.at[k] = from_compute<T>(args.accumulate ? value + to_compute(out.at[k]) : value);
    }
    reinterpret_cast<Packet<T>*>(args.out)[p] = out;
  }
}

/// Launches map_rows() if the operands lie so; else nothing is done.
template <class T, class F, int N>
bool try_rows(const detail::StridedPlan<N + 1>& plan, const detail::TensorView& out, bool accumulate,
              const std::array<MapOperand, N>& in, const F& f) {
  using detail::cuda::is_aligned;
  constexpr std::int64_t kSize = Packet<T>::kSize, kMost = std::int64_t{1} << 31;
  if (plan.axes != 2 || plan.size[1] % kSize != 0 || plan.total / kSize >= kMost || !is_aligned(out.data))
    return false;
  RowArguments<T, N> args{};
  args.out = out.as<T>();
  args.accumulate = accumulate;
  args.packets = plan.total / kSize;
  args.row = detail::cuda::Divisor(static_cast<std::uint32_t>(plan.size[1] / kSize));
  if (plan.stride[0][0] != plan.size[1] || plan.stride[0][1] != 1) return false;
  for (std::size_t n = 0; n < N; ++n) {
    const detail::ConstTensorView& view = in[n].view;
    const auto& stride = plan.stride[n + 1];
    if (view.data == nullptr || !is_aligned(view.data) || stride[1] != 1) return false;
    args.in[n] = view.data;
    args.repeats[n] = stride[0] == 0;
    const bool fits =
        args.repeats[n] ? view.dtype == DType::Float32 : stride[0] == plan.size[1] && view.dtype == out.dtype;
    if (!fits) return false;
  }
  detail::cuda::launch_early("map_rows", out.device, detail::cuda::blocks_for(args.packets, kMapThreads),
                             kMapThreads, 0, map_rows<T, N, F>, args, f);
  return true;
}

template <class F>
concept ByRows = F::kByRows;

/// out = or += f(views…), computed in C: float, double or std::int64_t.
template <class C, class F, class... Views>
void map_each(const detail::TensorView& out, detail::GradientWrite write, const F& f, const Views&... views) {
  constexpr int N = static_cast<int>(sizeof...(Views));
  const std::array<MapOperand, N> in{MapOperand(views)...};
  const bool accumulate = write == detail::GradientWrite::Accumulate;
  std::array<Strides, N + 1> strides;
  strides[0] = out.strides;
  // A number lies as the result does, so that it does not keep axes from merging.
  for (std::size_t n = 0; n < N; ++n)
    strides[n + 1] = in[n].view.data != nullptr ? in[n].view.strides : out.strides;
  const auto plan = detail::plan_strided<N + 1>(out.shape, strides);
  if (plan.total == 0) return;
  if constexpr (std::is_same_v<C, float>) {
    if (lies_alike<N>(plan, out, in)) {
      if (out.dtype == DType::Float32) return launch_dense<float, F, N>(out, accumulate, in, f);
      if (out.dtype == DType::BFloat16) return launch_dense<BFloat16, F, N>(out, accumulate, in, f);
      if (out.dtype == DType::Float16) return launch_dense<Float16, F, N>(out, accumulate, in, f);
    }
    if constexpr (ByRows<F>) {
      if (out.dtype == DType::Float32 && try_rows<float, F, N>(plan, out, accumulate, in, f)) return;
      if (out.dtype == DType::BFloat16 && try_rows<BFloat16, F, N>(plan, out, accumulate, in, f)) return;
      if (out.dtype == DType::Float16 && try_rows<Float16, F, N>(plan, out, accumulate, in, f)) return;
    }
  }
  MapArguments<C, N> args{};
  args.accumulate = accumulate;
  args.dtype[0] = out.dtype;
  for (int n = 0; n < N; ++n) {
    const MapOperand& operand = in[static_cast<std::size_t>(n)];
    args.number[n] = static_cast<C>(operand.number);
    args.dtype[n + 1] = operand.view.dtype;
  }
  for (int axis = 0; axis < plan.axes; ++axis)
    for (int n = 0; n <= N; ++n)
      args.stride[n][axis] = plan.stride[static_cast<std::size_t>(n)][static_cast<std::size_t>(axis)];
  for_each_slice(plan, [&](const Index& index, const std::array<std::int64_t, N + 1>& offset) {
    args.index = index;
    args.out = static_cast<std::byte*>(out.data) + offset[0] * static_cast<std::int64_t>(size_of(out.dtype));
    for (int n = 0; n < N; ++n) {
      const detail::ConstTensorView& view = in[static_cast<std::size_t>(n)].view;
      args.in[n] = view.data == nullptr ? nullptr
                                        : static_cast<const std::byte*>(view.data) +
                                              offset[static_cast<std::size_t>(n + 1)] *
                                                  static_cast<std::int64_t>(size_of(view.dtype));
    }
    detail::cuda::launch_early("map_by_index", out.device, detail::cuda::blocks_for(index.total, kMapThreads),
                               kMapThreads, 0, map_by_index<C, N, F>, args, f);
  });
}

}  // namespace lamella::cuda
