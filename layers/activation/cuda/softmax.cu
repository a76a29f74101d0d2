#include <limits>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "layers/activation/kernels.h"
#include "tensor/cuda/index.cuh"
#include "tensor/functions.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::exponential;
using detail::GradientWrite;
using detail::TensorView;

namespace {

constexpr unsigned kThreads = 256;

/// Lines of `length` numbers along one axis of each operand, the written one first. `along` threads, a power
/// of two, take a line; where `neighbours`, threads that follow each other take different lines.
template <int N>
struct Lines {
  Index index;
  std::int64_t between[N][kMaxAxes];  ///< strides of the other axes
  std::int64_t step[N];               ///< along a line
  std::int64_t length;
  unsigned along;
  bool neighbours;
};

/// What a thread does: numbers first, first + along, … of one line.
template <int N>
struct LineItem {
  __device__ explicit LineItem(const Lines<N>& lines) {
    const unsigned side = kThreads / lines.along;
    slot = lines.neighbours ? threadIdx.x % side : threadIdx.x / lines.along;
    first = lines.neighbours ? threadIdx.x / side : threadIdx.x % lines.along;
    const std::int64_t line = std::int64_t{blockIdx.x} * side + slot;
    length = line < lines.index.total ? lines.length : 0;
    if (length > 0)
      lines.index.visit(static_cast<std::uint32_t>(line), [&](int axis, std::uint32_t at) {
#pragma unroll
        for (int n = 0; n < N; ++n) offset[n] += at * lines.between[n][axis];
      });
  }

  unsigned slot, first;
  std::int64_t length;  ///< 0: there is no such line
  std::int64_t offset[N] = {};
};

struct Sum {
  __device__ double operator()(double a, double b) const { return a + b; }
};
struct Larger {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return b > a ? b : a;
  }
};

/// The result over the threads of a line, in a fixed order, for all of them. For the whole block to call.
template <class V, class Op>
__device__ V over_line(V own, unsigned slot, unsigned first, unsigned along, const Op& op) {
  __shared__ V shared[kThreads];
  const unsigned at = slot * along + first;
  shared[at] = own;
  for (unsigned half = along / 2; half > 0; half /= 2) {
    __syncthreads();
    if (first < half) shared[at] = op(shared[at], shared[at + half]);
  }
  __syncthreads();
  return shared[slot * along];
}

/// NaN passes the maximum by but not the sum.
template <class T, bool kLogarithm>
__global__ void __launch_bounds__(kThreads) softmax_lines(const T* x, T* y, const Lines<2> lines) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  using detail::cuda::to_compute;
  const LineItem<2> item(lines);
  const T* const from = x + item.offset[1];
  T* const to = y + item.offset[0];
  C top = -std::numeric_limits<C>::infinity();
#pragma unroll 4
  for (std::int64_t i = item.first; i < item.length; i += lines.along)
    top = Larger()(top, to_compute(from[i * lines.step[1]]));
  top = over_line(top, item.slot, item.first, lines.along, Larger());
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = item.first; i < item.length; i += lines.along)
    sum += static_cast<double>(exponential(to_compute(from[i * lines.step[1]]) - top));
  sum = over_line(sum, item.slot, item.first, lines.along, Sum());
  const C last = static_cast<C>(kLogarithm ? log(sum) : 1 / sum);
#pragma unroll 4
  for (std::int64_t i = item.first; i < item.length; i += lines.along) {
    const C below = to_compute(from[i * lines.step[1]]) - top;
    to[i * lines.step[0]] =
        detail::cuda::from_compute<T>(kLogarithm ? below - last : exponential(below) * last);
  }
}

/// Operands: dx, g, y.
template <class T, bool kLogarithm>
__global__ void __launch_bounds__(kThreads)
    softmax_gradient_lines(const T* g, const T* y, T* dx, bool accumulate, const Lines<3> lines) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  using detail::cuda::to_compute;
  const LineItem<3> item(lines);
  const T* const from = g + item.offset[1];
  const T* const results = y + item.offset[2];
  T* const to = dx + item.offset[0];
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = item.first; i < item.length; i += lines.along) {
    const double weight = kLogarithm ? 1 : static_cast<double>(to_compute(results[i * lines.step[2]]));
    sum += static_cast<double>(to_compute(from[i * lines.step[1]])) * weight;
  }
  const C total = static_cast<C>(over_line(sum, item.slot, item.first, lines.along, Sum()));
#pragma unroll 4
  for (std::int64_t i = item.first; i < item.length; i += lines.along) {
    const C gradient = to_compute(from[i * lines.step[1]]), result = to_compute(results[i * lines.step[2]]);
    const C value = kLogarithm ? gradient - exponential(result) * total : result * (gradient - total);
    detail::cuda::write_number(to[i * lines.step[0]], value, accumulate);
  }
}

/// The smallest power of two that is at least n, or `most`.
unsigned power_of_two(std::int64_t n, unsigned most) {
  unsigned power = 1;
  while (power < most && power < n) power *= 2;
  return power;
}

/// Calls body(lines, blocks, offsets) for the lines along `axis`, maybe in several parts that begin at these
/// offsets of the operands. `strides[0]` are those of what is written.
template <int N, class Body>
void for_lines(const Shape& shape, int axis, const std::array<Strides, N>& strides, const Body& body) {
  Shape others = shape;
  others[axis] = 1;
  const auto plan = detail::plan_strided<N>(others, strides);
  Lines<N> lines{};
  lines.length = shape[axis];
  if (plan.total == 0 || lines.length == 0) return;
  const auto last = static_cast<std::size_t>(plan.axes - 1);
  lines.neighbours = plan.stride[0][last] < strides[0][axis] && plan.size[last] > 1;
  for (std::size_t n = 0; n < N; ++n) {
    lines.step[n] = strides[n][axis];
    for (std::size_t k = 0; k < static_cast<std::size_t>(plan.axes); ++k)
      lines.between[n][k] = plan.stride[n][k];
  }
  constexpr std::int64_t kLongLine = 1024;
  if (lines.neighbours)
    lines.along = power_of_two((lines.length + 7) / 8, 8);
  else
    lines.along = lines.length > kLongLine ? kThreads : power_of_two(lines.length, 32);
  for_each_slice<N>(plan, [&](const Index& index, const std::array<std::int64_t, N>& offsets) {
    lines.index = index;
    const std::int64_t side = kThreads / lines.along;
    body(lines, static_cast<unsigned>((index.total + side - 1) / side), offsets);
  });
}

}  // namespace

void softmax_forward(bool logarithm, const ConstTensorView& x, int axis, const TensorView& y) {
  LAMELLA_CHECK(DTypeError, x.dtype == y.dtype, "softmax: ", name(x.dtype), " into ", name(y.dtype));
  detail::dispatch_floating(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto kernel = logarithm ? softmax_lines<T, true> : softmax_lines<T, false>;
    for_lines<2>(y.shape, axis, {y.strides, x.strides},
                 [&](const Lines<2>& lines, unsigned blocks, const std::array<std::int64_t, 2>& at) {
                   detail::cuda::launch_early("softmax", y.device, blocks, kThreads, 0, kernel,
                                              x.as<T>() + at[1], y.as<T>() + at[0], lines);
                 });
  });
}

void softmax_backward(bool logarithm, const ConstTensorView& g, const ConstTensorView& y, int axis,
                      const TensorView& dx, GradientWrite write) {
  LAMELLA_CHECK(DTypeError, g.dtype == dx.dtype && y.dtype == dx.dtype, "softmax: gradient of ",
                name(y.dtype), ", from ", name(g.dtype), " into ", name(dx.dtype));
  detail::dispatch_floating(dx.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto kernel = logarithm ? softmax_gradient_lines<T, true> : softmax_gradient_lines<T, false>;
    for_lines<3>(dx.shape, axis, {dx.strides, g.strides, y.strides},
                 [&](const Lines<3>& lines, unsigned blocks, const std::array<std::int64_t, 3>& at) {
                   detail::cuda::launch_early("softmax_backward", dx.device, blocks, kThreads, 0, kernel,
                                              g.as<T>() + at[1], y.as<T>() + at[2], dx.as<T>() + at[0],
                                              write == GradientWrite::Accumulate, lines);
                 });
  });
}

}  // namespace lamella::cuda
