#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "tensor/kernels/plane_product.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

struct Planes {
  std::int64_t batch, channels, height, width;
  std::int64_t a[4], b[4], out[2];  ///< strides
};

constexpr int kThreads = 256;

/// Threads of a block: x over neighbouring channels, y over pixels.
template <class T>
__global__ void multiply_planes(const T* a, const T* b, const Planes planes, T* out, bool accumulate) {
  detail::cuda::wait_for_stream();
  __shared__ double shared[kThreads];
  const std::int64_t groups = (planes.channels + blockDim.x - 1) / blockDim.x;
  const unsigned at = threadIdx.y * blockDim.x + threadIdx.x;
  for (std::int64_t item = blockIdx.x; item < planes.batch * groups; item += gridDim.x) {
    const std::int64_t n = item / groups, c = item % groups * blockDim.x + threadIdx.x;
    double total = 0;
    if (c < planes.channels) {
      const T* from_a = a + n * planes.a[0] + c * planes.a[1];
      const T* from_b = b + n * planes.b[0] + c * planes.b[1];
      std::int64_t h = threadIdx.y / planes.width, w = threadIdx.y % planes.width;
      const std::int64_t rows = blockDim.y / planes.width, columns = blockDim.y % planes.width;
      while (h < planes.height) {
        total += static_cast<double>(detail::cuda::to_compute(from_a[h * planes.a[2] + w * planes.a[3]])) *
                 static_cast<double>(detail::cuda::to_compute(from_b[h * planes.b[2] + w * planes.b[3]]));
        h += rows;
        w += columns;
        if (w >= planes.width) {
          w -= planes.width;
          ++h;
        }
      }
    }
    shared[at] = total;
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.y < half) shared[at] += shared[at + half * blockDim.x];
    }
    if (threadIdx.y == 0 && c < planes.channels) {
      T& to = out[n * planes.out[0] + c * planes.out[1]];
      const double before = accumulate ? static_cast<double>(detail::cuda::to_compute(to)) : 0.0;
      to = detail::cuda::from_compute<T>(static_cast<detail::ComputeType<T>>(before + shared[at]));
    }
    __syncthreads();
  }
}

}  // namespace

void plane_product(const ConstTensorView& a, const ConstTensorView& b, const TensorView& out,
                   GradientWrite write) {
  Planes planes{a.shape[0], a.shape[1], a.shape[2], a.shape[3], {}, {}, {out.strides[0], out.strides[1]}};
  for (int axis = 0; axis < 4; ++axis) {
    planes.a[axis] = a.strides[axis];
    planes.b[axis] = b.strides[axis];
  }
  const unsigned across = a.strides[1] == 1 && planes.channels > 1 ? 32 : 1;
  const std::int64_t items = planes.batch * ((planes.channels + across - 1) / across);
  detail::dispatch_floating(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    detail::cuda::launch_early("plane_product", out.device, detail::cuda::blocks_for(items, 1),
                               dim3(across, kThreads / across), 0, multiply_planes<T>, a.as<T>(), b.as<T>(),
                               planes, out.as<T>(), write == GradientWrite::Accumulate);
  });
}

}  // namespace lamella::cuda
