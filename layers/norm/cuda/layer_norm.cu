#include "core/workspace.h"
#include "layers/norm/cuda/parameters.cuh"
#include "layers/norm/cuda/row_cut.cuh"
#include "layers/norm/cuda/runs.cuh"
#include "layers/norm/kernels.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// Rows of `size` numbers. `width` threads take one: a warp, or the whole block.
struct Rows {
  Rows(std::int64_t rows, std::int64_t size, int packet_size)
      : rows(rows), size(size), packets((size + packet_size - 1) / packet_size) {
    constexpr std::int64_t kPacketsOfWarp = 512;
    width = packets > kPacketsOfWarp ? kNormThreads : 32;
  }
  dim3 block() const { return dim3(width, kNormThreads / width); }
  unsigned grid() const {
    const std::int64_t side = kNormThreads / width;
    return grid_of((rows + side - 1) / side);
  }
  __device__ std::int64_t mine() const { return std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }
  /// Packets of this thread, every width-th from threadIdx.x on.
  __device__ unsigned count() const {
    if (mine() >= rows || threadIdx.x >= packets) return 0;
    return static_cast<unsigned>((packets - threadIdx.x + width - 1) / width);
  }

  std::int64_t rows, size, packets;
  unsigned width;
};

/// Weight and bias, in row-major order; null: 1 and 0.
template <class C>
struct RowParameters {
  const C* weight;
  const C* bias;
  __device__ C weight_at(std::int64_t i) const { return weight != nullptr ? weight[i] : C(1); }
  __device__ C bias_at(std::int64_t i) const { return bias != nullptr ? bias[i] : C(0); }
};

template <class T, bool kWide>
__global__ void __launch_bounds__(kNormThreads)
    normalize_rows(const T* x, const Rows rows, const RowParameters<ComputeType<T>> parameters, double eps,
                   T* y, double* statistics) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  using Load = Loaded<T, 1>;
  constexpr int kSize = Numbers<T>::kSize;
  const std::int64_t row = rows.mine(), begin = row * rows.size;
  const auto column = [&](unsigned i) { return (threadIdx.x + std::int64_t{i} * rows.width) * kSize; };
  const auto load_one = [&](unsigned i) {
    Load load;
    load.valid = kWide ? kSize : static_cast<int>(min(std::int64_t{kSize}, rows.size - column(i)));
    load.stream[0] = load_numbers<kWide>(x + begin + column(i), load.valid);
    return load;
  };
  RunMoments<T> run;
  in_batches<Load>(
      rows.count(), load_one, [&](const Load(&batch)[kBatch], unsigned n) { run.begin(batch, n); },
      [&](const Load& load, unsigned i) {
        run.template add<kWide>(load);
        if (i % kRun == kRun - 1) run.settle();
      });
  run.settle();
  const Pair moments = over_threads<MomentsTally>(run.count, run.result(), rows.width);
  if (row >= rows.rows) return;
  const double exact = moments.x, inverse = 1 / sqrt(moments.y / static_cast<double>(rows.size) + eps);
  if (threadIdx.x == 0) {
    statistics[row] = exact;
    statistics[rows.rows + row] = inverse;
  }
  // x − mean with the mean in two parts: its rounding matters where it is far above σ.
  const C mean = static_cast<C>(exact), scale = static_cast<C>(inverse);
  const C rest = static_cast<C>((static_cast<double>(mean) - exact) * inverse);
  in_batches<Load>(rows.count(), load_one, [&](const Load& load, unsigned i) {
    C values[kSize] = {};
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      if (!kWide && k >= load.valid) continue;
      const C value = (load.stream[0].at(k) - mean) * scale + rest;
      values[k] = value * parameters.weight_at(column(i) + k) + parameters.bias_at(column(i) + k);
    }
    store_numbers<kWide>(values, y + begin + column(i), load.valid);
  });
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kNormThreads)
    row_gradients(const T* g, const T* x, const Rows rows, const RowParameters<ComputeType<T>> parameters,
                  const double* statistics, T* dx, bool accumulate) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  using Load = Loaded<T, 2>;
  constexpr int kSize = Numbers<T>::kSize;
  const std::int64_t row = rows.mine(), begin = row * rows.size;
  const bool exists = row < rows.rows;
  const double exact = exists ? statistics[row] : 0, inverse = exists ? statistics[rows.rows + row] : 0;
  const C mean = static_cast<C>(exact);
  const auto column = [&](unsigned i) { return (threadIdx.x + std::int64_t{i} * rows.width) * kSize; };
  const auto load_one = [&](unsigned i) {
    Load load;
    load.valid = kWide ? kSize : static_cast<int>(min(std::int64_t{kSize}, rows.size - column(i)));
    load.stream[0] = load_numbers<kWide>(g + begin + column(i), load.valid);
    load.stream[1] = load_numbers<kWide>(x + begin + column(i), load.valid);
    return load;
  };
  RunSums<T> run;
  in_batches<Load>(rows.count(), load_one, [&](const Load& load, unsigned i) {
#pragma unroll
    for (int k = 0; k < kSize; ++k)
      if (kWide || k < load.valid)
        run.add(k, load.stream[0].at(k) * parameters.weight_at(column(i) + k), load.stream[1].at(k) - mean);
    if (i % kRun == kRun - 1) run.settle();
  });
  run.settle();
  const Pair total = over_threads<SumsTally>(0, run.total, rows.width);
  if (!exists) return;
  // dx = inverse · (g · w − mean(g · w) − x̂ · mean(g · w · x̂))
  const double off = static_cast<double>(mean) - exact, count = static_cast<double>(rows.size);
  const double slope = -(total.y + off * total.x) * inverse * inverse * inverse / count;
  const C a = static_cast<C>(inverse), p = static_cast<C>(slope);
  const C q = static_cast<C>(slope * off - inverse * total.x / count);
  in_batches<Load>(rows.count(), load_one, [&](const Load& load, unsigned i) {
    T* const to = dx + begin + column(i);
    C values[kSize] = {};
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      if (!kWide && k >= load.valid) continue;
      const C weighted = load.stream[0].at(k) * parameters.weight_at(column(i) + k);
      values[k] = a * weighted + (p * (load.stream[1].at(k) - mean) + q);
    }
    if (accumulate) {
      const Numbers<T> before = load_numbers<kWide>(static_cast<const T*>(to), load.valid);
#pragma unroll
      for (int k = 0; k < kSize; ++k) values[k] += before.at(k);
    }
    store_numbers<kWide>(values, to, load.valid);
  });
}

/// Σ g and Σ g · x̂ of every column over a part of the rows.
template <class T, bool kWide>
__global__ void __launch_bounds__(kNormThreads, 2)
    column_products(const T* g, const T* x, const RowCut cut, const double* statistics, Pair* pairs) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  using Load = Loaded<T, 2>;
  constexpr int kSize = Numbers<T>::kSize;
  __shared__ Pair shared[kSize * kNormThreads];
  const RowItem<kSize> item(cut, blockIdx.x);
  C sum[kSize] = {}, product[kSize] = {};
  in_batches<Load>(
      item.count,
      [&](unsigned i) {
        const std::int64_t at = item.offset + i * item.step;
        Load load;
        load.stream[0] = load_numbers<kWide>(g + at, item.valid);
        load.stream[1] = load_numbers<kWide>(x + at, item.valid);
        return load;
      },
      [&](const Load& load, unsigned i) {
        const std::int64_t row = item.row + std::int64_t{i} * item.down;
        const double exact = statistics[row], inverse = statistics[cut.rows + row];
        const C mean = static_cast<C>(exact), scale = static_cast<C>(inverse);
        const C rest = static_cast<C>((static_cast<double>(mean) - exact) * inverse);
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
          const C value = load.stream[0].at(k);
          sum[k] += value;
          product[k] += value * ((load.stream[1].at(k) - mean) * scale + rest);
        }
      });
#pragma unroll
  for (int k = 0; k < kSize; ++k)
    lane_pair(shared, k) = {static_cast<double>(sum[k]), static_cast<double>(product[k])};
  merge_lanes<SumsTally>(cut, item, shared, pairs);
}

}  // namespace

void layer_norm_forward(const ConstTensorView& x, std::int64_t size, const ConstTensorView& weight,
                        const ConstTensorView& bias, double eps, const TensorView& y,
                        const TensorView& statistics) {
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Rows rows(statistics.shape[1], size, Numbers<T>::kSize);
    if (rows.rows == 0) return;
    const DenseNumbers<C> w(weight), b(bias);
    dispatch_wide<T>(size % Numbers<T>::kSize == 0, {x.data, y.data}, [&](auto wide) {
      detail::cuda::launch_early("layer_norm_forward", x.device, rows.grid(), rows.block(), 0,
                                 normalize_rows<T, wide()>, x.as<T>(), rows,
                                 RowParameters<C>{w.get(), b.get()}, eps, y.as<T>(), statistics.as<double>());
    });
  });
}

void layer_norm_backward_input(const ConstTensorView& grad, const ConstTensorView& x, std::int64_t size,
                               const ConstTensorView& weight, const ConstTensorView& statistics,
                               const TensorView& dx, GradientWrite write) {
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Rows rows(statistics.shape[1], size, Numbers<T>::kSize);
    if (rows.rows == 0) return;
    const DenseNumbers<C> w(weight);
    dispatch_wide<T>(size % Numbers<T>::kSize == 0, {grad.data, x.data, dx.data}, [&](auto wide) {
      detail::cuda::launch_early("layer_norm_backward_input", x.device, rows.grid(), rows.block(), 0,
                                 row_gradients<T, wide()>, grad.as<T>(), x.as<T>(), rows,
                                 RowParameters<C>{w.get(), nullptr}, statistics.as<double>(), dx.as<T>(),
                                 write == GradientWrite::Accumulate);
    });
  });
}

void layer_norm_backward_parameters(const ConstTensorView& grad, const ConstTensorView& x, std::int64_t size,
                                    const ConstTensorView& statistics, const TensorView& sums) {
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const RowCut cut(1, statistics.shape[1], size, 1, Numbers<T>::kSize);
    const detail::Workspace pairs(x.device, cut.parts * size * static_cast<std::int64_t>(sizeof(Pair)));
    dispatch_wide<T>(size % Numbers<T>::kSize == 0, {grad.data, x.data}, [&](auto wide) {
      detail::cuda::launch_early("layer_norm_backward_parameters", x.device, grid_of(cut.blocks()),
                                 kNormThreads, 0, column_products<T, wide()>, grad.as<T>(), x.as<T>(), cut,
                                 statistics.as<double>(), pairs.as<Pair>());
    });
    finish_parts<SumsTally>("layer_norm_backward_parameters", x.device, pairs.as<Pair>(), cut.counts(), size,
                            StoreRows{sums.as<double>(), size});
  });
}

}  // namespace lamella::cuda
