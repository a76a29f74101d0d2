#include <cmath>

#include "core/cuda/block.cuh"
#include "core/workspace.h"
#include "optim/cuda/update.cuh"
#include "optim/kernels.h"

namespace lamella::cuda {

using detail::cuda::sum_over_block;

namespace {

template <class T>
__device__ double square(T x) {
  return static_cast<double>(x) * static_cast<double>(x);
}

/// partial[block] = the sum of the squares of a block's elements. Threads take the same elements whether
/// these come in packets or not.
template <class T>
__global__ void __launch_bounds__(kWalkThreads) square_dense(const DenseTable<1> table, double* partial) {
  detail::cuda::wait_for_stream();
  using Lot = detail::cuda::Packet<T>;
  constexpr int kSize = Lot::kSize;
  const auto place = table.place(blockIdx.x, kWalkChunk<T>);
  const T* const from = static_cast<const T*>(table.data[place.item][0]) + place.begin;
  const int lots = place.count / kSize;
  double sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < lots; i += kWalkThreads) {
    Lot lot;
    if (table.in_packets[place.item]) {
      lot = reinterpret_cast<const Lot*>(from)[i];
    } else {
#pragma unroll
      for (int v = 0; v < kSize; ++v) lot.at[v] = from[i * kSize + v];
    }
#pragma unroll
    for (int v = 0; v < kSize; ++v) sum += square(lot.at[v]);
  }
  const int last = lots * kSize + static_cast<int>(threadIdx.x);
  if (last < place.count) sum += square(from[last]);
  __shared__ double shared[kWalkThreads];
  sum = sum_over_block(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(kWalkThreads)
    square_strided(const StridedTensor<1> tensor, double* partial) {
  detail::cuda::wait_for_stream();
  const std::uint32_t step = gridDim.x * blockDim.x;
  double sum = 0;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < tensor.index.total; i += step) {
    std::int64_t offset[1];
    tensor.offsets(i, offset);
    sum += square(static_cast<const T*>(tensor.data[0])[offset[0]]);
  }
  __shared__ double shared[kWalkThreads];
  sum = sum_over_block(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

constexpr int kFinishThreads = 1024;

__global__ void __launch_bounds__(kFinishThreads)
    finish_norm(const double* partial, std::int64_t count, double* norm) {
  detail::cuda::wait_for_stream();
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kFinishThreads) sum += partial[i];
  __shared__ double shared[kFinishThreads];
  sum = sum_over_block(sum, shared);
  if (threadIdx.x == 0) *norm = std::sqrt(sum);
}

struct Scale {
  static constexpr int kOperands = 1;
  static constexpr unsigned kWritten = 0b1;
  const double* norm;
  double max_norm;

  template <class T>
  struct Constants {
    T factor;
    bool idle;
  };
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t*) const {
    const double scale = max_norm / (*norm + 1e-6);
    return {static_cast<T>(scale), scale >= 1};  // a NaN is not
  }
  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    numbers[0] *= c.factor;
  }
};

struct Limit {
  static constexpr int kOperands = 1;
  static constexpr unsigned kWritten = 0b1;
  double limit;

  template <class T>
  struct Constants {
    T high;
  };
  template <class T>
  __device__ Constants<T> constants(void* const*, const std::int64_t*) const {
    return {static_cast<T>(limit)};
  }
  template <class T>
  __device__ static void apply(const Constants<T>& c, T (&numbers)[kOperands]) {
    const T value = numbers[0] < -c.high ? -c.high : numbers[0];
    numbers[0] = value > c.high ? c.high : value;
  }
};

template <class View>
WalkItems<1> items_of(const std::vector<View>& gradients) {
  WalkItems<1> items(gradients.size());
  for (std::size_t i = 0; i < items.size(); ++i) items[i].set(0, gradients[i]);
  return items;
}

}  // namespace

void gradient_norm(const std::vector<detail::ConstTensorView>& gradients, const detail::TensorView& norm) {
  const WalkItems<1> items = items_of(gradients);
  check_types(items);
  // First the launches are counted, to know how many blocks there are; then they are made.
  std::int64_t blocks = 0;
  const auto blocks_of = [](const StridedTensor<1>& tensor) {
    return std::min<std::int64_t>((tensor.index.total + 4095) / 4096, 4096);
  };
  const auto count = [&]<class T>(T) {
    walk<T>(
        items, [&](const DenseTable<1>& table) { blocks += table.blocks(); },
        [&](const StridedTensor<1>& tensor) { blocks += blocks_of(tensor); });
  };
  count(float());
  count(double());
  const detail::Workspace partial(norm.device, blocks * static_cast<std::int64_t>(sizeof(double)));
  std::int64_t done = 0;
  const auto run = [&]<class T>(T) {
    walk<T>(
        items,
        [&](const DenseTable<1>& table) {
          detail::cuda::launch_early("gradient_norm", norm.device, table.blocks(), kWalkThreads, 0,
                                     square_dense<T>, table, partial.as<double>() + done);
          done += table.blocks();
        },
        [&](const StridedTensor<1>& tensor) {
          detail::cuda::launch_early("gradient_norm", norm.device, static_cast<unsigned>(blocks_of(tensor)),
                                     kWalkThreads, 0, square_strided<T>, tensor, partial.as<double>() + done);
          done += blocks_of(tensor);
        });
  };
  run(float());
  run(double());
  detail::cuda::launch_early("gradient_norm", norm.device, 1, kFinishThreads, 0, finish_norm,
                             partial.as<double>(), blocks, norm.as<double>());
}

void scale_gradients(const std::vector<detail::TensorView>& gradients, const double* norm, double max_norm) {
  update("scale_gradients", items_of(gradients), Scale{norm, max_norm});
}

void limit_gradients(const std::vector<detail::TensorView>& gradients, double limit) {
  update("limit_gradients", items_of(gradients), Limit{limit});
}

}  // namespace lamella::cuda
