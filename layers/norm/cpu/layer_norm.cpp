#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "layers/norm/cpu/moments.h"
#include "layers/norm/cpu/parameters.h"
#include "layers/norm/kernels.h"
#include "tensor/cpu/strided.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

std::int64_t rows_at_once(std::int64_t size) { return std::max<std::int64_t>(1, kElementGrain / size); }

/// Σ g · w and Σ g · w · (x − mean) over a row.
template <class T, class C>
std::pair<double, double> weighted_products(const T* g, const T* x, const C* w, std::int64_t n, C mean) {
  C g_buffer[std::is_same_v<T, C> ? 1 : kRun], x_buffer[std::is_same_v<T, C> ? 1 : kRun];
  std::pair<double, double> all{0, 0};
  for (std::int64_t at = 0; at < n; at += kRun) {
    const std::int64_t m = std::min(kRun, n - at);
    const C* const gs = load_row(g + at, m, g_buffer);
    const C* const xs = load_row(x + at, m, x_buffer);
    const auto [sum, product] = run_sums<C>(m, [&](std::int64_t i, auto& s, auto& p) {
      const auto value = take(gs + i, s) * take(w + at + i, s);
      s += value;
      p += value * (take(xs + i, p) - mean);
    });
    all.first += sum;
    all.second += product;
  }
  return all;
}

template <class C>
std::vector<C> in_compute_type(const ConstTensorView& parameter, std::int64_t size, double filler) {
  const std::vector<double> values = load_parameter(parameter, size, filler);
  return {values.begin(), values.end()};
}

}  // namespace

void layer_norm_forward(const ConstTensorView& x, std::int64_t size, const ConstTensorView& weight,
                        const ConstTensorView& bias, double eps, const TensorView& y,
                        const TensorView& statistics) {
  const std::int64_t rows = statistics.shape[1];
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const std::vector<C> w = in_compute_type<C>(weight, size, 1), b = in_compute_type<C>(bias, size, 0);
    detail::parallel_for(rows, rows_at_once(size), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T* const from = x.as<T>() + row * size;
        T* const to = y.as<T>() + row * size;
        const Moments moments = moments_of_run(from, size);
        const double inverse = 1 / std::sqrt(moments.m2 / moments.count + eps);
        statistics.as<double>()[row] = moments.mean;
        statistics.as<double>()[rows + row] = inverse;
        // x − mean with the mean in two parts: its rounding matters where it is far above σ.
        const C mean = static_cast<C>(moments.mean), scale = static_cast<C>(inverse);
        const C rest = static_cast<C>((static_cast<double>(mean) - moments.mean) * inverse);
        for (std::int64_t i = 0; i < size; ++i)
          to[i] = static_cast<T>(((static_cast<C>(from[i]) - mean) * scale + rest) *
                                     w[static_cast<std::size_t>(i)] +
                                 b[static_cast<std::size_t>(i)]);
      }
    });
  });
}

void layer_norm_backward_input(const ConstTensorView& grad, const ConstTensorView& x, std::int64_t size,
                               const ConstTensorView& weight, const ConstTensorView& statistics,
                               const TensorView& dx, GradientWrite write) {
  const std::int64_t rows = statistics.shape[1];
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const std::vector<C> weights = in_compute_type<C>(weight, size, 1);
    const C* const w = weights.data();
    detail::parallel_for(rows, rows_at_once(size), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T* const g = grad.as<T>() + row * size;
        const T* const from = x.as<T>() + row * size;
        T* const to = dx.as<T>() + row * size;
        const double exact_mean = statistics.as<double>()[row], inverse = statistics.as<double>()[rows + row];
        const C mean = static_cast<C>(exact_mean);
        const auto [sum, rough] = weighted_products(g, from, w, size, mean);
        const double off = static_cast<double>(mean) - exact_mean;
        const double product = rough + off * sum, count = static_cast<double>(size);
        // dx = inverse · (g · w − mean(g · w) − x̂ · mean(g · w · x̂))
        const double slope = -product * inverse * inverse * inverse / count;
        const C a = static_cast<C>(inverse), p = static_cast<C>(slope);
        const C q = static_cast<C>(slope * off - inverse * sum / count);
        if (write == GradientWrite::Accumulate)
          for (std::int64_t i = 0; i < size; ++i)
            to[i] = static_cast<T>(static_cast<C>(to[i]) + (a * (static_cast<C>(g[i]) * w[i]) +
                                                            (p * (static_cast<C>(from[i]) - mean) + q)));
        else
          for (std::int64_t i = 0; i < size; ++i)
            to[i] = static_cast<T>(a * (static_cast<C>(g[i]) * w[i]) +
                                   (p * (static_cast<C>(from[i]) - mean) + q));
      }
    });
  });
}

void layer_norm_backward_parameters(const ConstTensorView& grad, const ConstTensorView& x, std::int64_t size,
                                    const ConstTensorView& statistics, const TensorView& sums) {
  const std::int64_t rows = statistics.shape[1];
  // Items are pieces of columns times pieces of rows; wide rows have enough columns.
  const std::int64_t column_pieces = (size + kTileLanes - 1) / kTileLanes;
  const std::int64_t most = std::max<std::int64_t>(1, 256 / column_pieces);
  const std::int64_t piece = std::max(kBlockRows, (rows + most - 1) / most);
  const std::int64_t row_pieces = std::max<std::int64_t>(1, (rows + piece - 1) / piece);
  std::vector<double> partial(static_cast<std::size_t>(2 * row_pieces * size), 0.0);
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    detail::parallel_for(row_pieces * column_pieces, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t first = item / column_pieces * piece, last = std::min(rows, first + piece);
        const std::int64_t column = item % column_pieces * kTileLanes,
                           n = std::min(kTileLanes, size - column);
        double* const total = partial.data() + 2 * (item / column_pieces) * size + column;
        C sum[kTileLanes], product[kTileLanes];
        for (std::int64_t block = first; block < last; block += kBlockRows) {
          std::fill_n(sum, n, C(0));
          std::fill_n(product, n, C(0));
          for (std::int64_t row = block; row < std::min(last, block + kBlockRows); ++row) {
            const T* const g = grad.as<T>() + row * size + column;
            const T* const from = x.as<T>() + row * size + column;
            const double exact_mean = statistics.as<double>()[row],
                         inverse = statistics.as<double>()[rows + row];
            const C mean = static_cast<C>(exact_mean), scale = static_cast<C>(inverse);
            const C rest = static_cast<C>((static_cast<double>(mean) - exact_mean) * inverse);
            for (std::int64_t i = 0; i < n; ++i) {
              sum[i] += static_cast<C>(g[i]);
              product[i] += static_cast<C>(g[i]) * ((static_cast<C>(from[i]) - mean) * scale + rest);
            }
          }
          for (std::int64_t i = 0; i < n; ++i) {
            total[i] += static_cast<double>(sum[i]);
            total[size + i] += static_cast<double>(product[i]);
          }
        }
      }
    });
  });
  double* const result = sums.as<double>();
  std::fill_n(result, 2 * size, 0.0);
  for (std::int64_t k = 0; k < row_pieces; ++k)
    for (std::int64_t i = 0; i < 2 * size; ++i)
      result[i] += partial[static_cast<std::size_t>(2 * k * size + i)];
}

}  // namespace lamella::cpu
