#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "tensor/dispatch.h"

/// Sums over blocks of rows, the work of every normalisation. A row holds `lanes` numbers, a lane is one
/// column. float32 sums run over at most kBlockRows rows per lane before they go into doubles.
namespace lamella::cpu {

inline constexpr std::int64_t kBlockRows = 128;
inline constexpr std::int64_t kTileLanes = 512;

/// A row as ComputeType: where it lies, or converted into `buffer`.
template <class T, class C>
const C* load_row(const T* row, std::int64_t lanes, C* buffer) {
  if constexpr (std::is_same_v<T, C>) {
    return row;
  } else {
    for (std::int64_t l = 0; l < lanes; ++l) buffer[l] = static_cast<C>(row[l]);
    return buffer;
  }
}

/// Asks for the row that is read about 4 KiB from here: short rows are no stream that the hardware follows
/// far.
template <class T>
void fetch_row(const T* row, std::int64_t step, std::int64_t lanes) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  const T* const later = row + std::clamp<std::int64_t>(64 * kLine / lanes, 1, 8) * step;
  for (std::int64_t l = 0; l < lanes; l += kLine) __builtin_prefetch(later + l);
}

/// sum[l] += Σ (x − pivot[l]), square[l] += Σ (x − pivot[l])². The sums stay in the L1 cache, not in
/// registers: memory is read in the order in which it lies.
template <class T, class C>
void add_deviations(const T* x, std::int64_t step, std::int64_t rows, std::int64_t lanes,
                    const C* __restrict pivot, C* __restrict sum, C* __restrict square) {
  C buffer[2][std::is_same_v<T, C> ? 1 : kTileLanes];
  std::int64_t r = 0;
  for (; r + 2 <= rows; r += 2, x += 2 * step) {
    fetch_row(x, step, lanes);
    fetch_row(x + step, step, lanes);
    const C* const a = load_row(x, lanes, buffer[0]);
    const C* const b = load_row(x + step, lanes, buffer[1]);
    for (std::int64_t l = 0; l < lanes; ++l) {
      const C d = a[l] - pivot[l], e = b[l] - pivot[l];
      sum[l] += d + e;
      square[l] += d * d + e * e;
    }
  }
  if (r == rows) return;
  const C* const a = load_row(x, lanes, buffer[0]);
  for (std::int64_t l = 0; l < lanes; ++l) {
    const C d = a[l] - pivot[l];
    sum[l] += d;
    square[l] += d * d;
  }
}

/// sum[l] += Σ g, product[l] += Σ g · (x − mean[l]).
template <class T, class C>
void add_products(const T* g, const T* x, std::int64_t step, std::int64_t rows, std::int64_t lanes,
                  const C* __restrict mean, C* __restrict sum, C* __restrict product) {
  C g_buffer[std::is_same_v<T, C> ? 1 : kTileLanes], x_buffer[std::is_same_v<T, C> ? 1 : kTileLanes];
  for (std::int64_t r = 0; r < rows; ++r, g += step, x += step) {
    fetch_row(g, step, lanes);
    fetch_row(x, step, lanes);
    const C* const gs = load_row(g, lanes, g_buffer);
    const C* const xs = load_row(x, lanes, x_buffer);
    for (std::int64_t l = 0; l < lanes; ++l) {
      sum[l] += gs[l];
      product[l] += gs[l] * (xs[l] - mean[l]);
    }
  }
}

/// Count, mean and M2 of some numbers.
struct Moments {
  double count = 0, mean = 0, m2 = 0;

  void merge(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    const double all = count + other.count, delta = other.mean - mean;
    mean += delta * (other.count / all);
    m2 += other.m2 + delta * delta * (count * other.count / all);
    count = all;
  }
  /// From sums of deviations from a pivot.
  static Moments of(double count, double pivot, double sum, double square) {
    const double moved = sum / count, m2 = square - sum * moved;
    return {count, pivot + moved, m2 < 0 ? 0 : m2};  // keeps NaN
  }
};

/// Merges n parts of `each` numbers, `step` apart, without a division for each.
inline Moments merge_equal(const double* mean, const double* m2, std::int64_t n, std::int64_t step,
                           double each) {
  double sum = 0, within = 0, between = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += mean[i * step], within += m2[i * step];
  const double middle = sum / static_cast<double>(n);
  for (std::int64_t i = 0; i < n; ++i) {
    const double delta = mean[i * step] - middle;
    between += delta * delta;
  }
  return {each * static_cast<double>(n), middle, within + between * each};
}

/// One vector of 32 bytes; wider machines pair them.
template <class C>
struct VectorOf {
  using type [[gnu::vector_size(32)]] = C;
};
template <class C>
using Vector = typename VectorOf<C>::type;
template <class C>
inline constexpr std::int64_t kVectorLanes = 32 / static_cast<std::int64_t>(sizeof(C));
/// Numbers of a dense run that are summed in vectors before they go into doubles.
inline constexpr std::int64_t kRun = 4096;

/// A vector or a number, whichever `like` is, from memory of any alignment.
template <class V, class C>
V take(const C* at, const V& /*like*/) {
  V value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

template <class C>
double total(const Vector<C>& v) {
  double halves[kVectorLanes<C> / 2];
  for (std::int64_t l = 0; l < kVectorLanes<C> / 2; ++l)
    halves[l] = static_cast<double>(v[2 * l]) + static_cast<double>(v[2 * l + 1]);
  if constexpr (kVectorLanes<C> == 4)
    return halves[0] + halves[1];
  else
    return (halves[0] + halves[1]) + (halves[2] + halves[3]);
}

/// Two sums over n <= kRun numbers: term(i, first, second) adds those from i on, a vector or (for the last
/// few) a single number, to its accumulators.
template <class C, class Term>
std::pair<double, double> run_sums(std::int64_t n, const Term& term) {
  constexpr std::int64_t kLanes = kVectorLanes<C>;
  Vector<C> first[4] = {}, second[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (std::int64_t v = 0; v < 4; ++v) term(i + v * kLanes, first[v], second[v]);
  for (; i + kLanes <= n; i += kLanes) term(i, first[0], second[0]);
  C first_rest = 0, second_rest = 0;
  for (; i < n; ++i) term(i, first_rest, second_rest);
  return {static_cast<double>(first_rest) + total<C>((first[0] + first[1]) + (first[2] + first[3])),
          static_cast<double>(second_rest) + total<C>((second[0] + second[1]) + (second[2] + second[3]))};
}

/// The mean of eight numbers from all over a run: neither a single outlier nor a border unlike the rest makes
/// the deviations from it large.
template <class C>
C pivot_of_run(const C* x, std::int64_t n) {
  const std::int64_t step = (n - 1) / 7;
  const auto at = [&](std::int64_t i) { return x[i * step]; };
  return (((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)))) * C(0.125);
}

template <class T>
Moments moments_of_run(const T* x, std::int64_t n) {
  using C = detail::ComputeType<T>;
  C buffer[std::is_same_v<T, C> ? 1 : kRun];
  Moments all;
  for (std::int64_t at = 0; at < n; at += kRun) {
    const std::int64_t m = std::min(kRun, n - at);
    const C* const from = load_row(x + at, m, buffer);
    const C pivot = pivot_of_run(from, m);
    const auto [sum, square] = run_sums<C>(m, [&](std::int64_t i, auto& s, auto& q) {
      const auto d = take(from + i, s) - pivot;
      s += d;
      q += d * d;
    });
    all.merge(Moments::of(static_cast<double>(m), static_cast<double>(pivot), sum, square));
  }
  return all;
}

/// Σ g and Σ g · (x − mean) over a dense run.
template <class T, class C>
std::pair<double, double> products_of_run(const T* g, const T* x, std::int64_t n, C mean) {
  C g_buffer[std::is_same_v<T, C> ? 1 : kRun], x_buffer[std::is_same_v<T, C> ? 1 : kRun];
  std::pair<double, double> all{0, 0};
  for (std::int64_t at = 0; at < n; at += kRun) {
    const std::int64_t m = std::min(kRun, n - at);
    const C* const gs = load_row(g + at, m, g_buffer);
    const C* const xs = load_row(x + at, m, x_buffer);
    const auto [sum, product] = run_sums<C>(m, [&](std::int64_t i, auto& s, auto& p) {
      const auto value = take(gs + i, s);
      s += value;
      p += value * (take(xs + i, p) - mean);
    });
    all.first += sum;
    all.second += product;
  }
  return all;
}

/// Moments of every lane of a block of rows, merged into mean[l] and m2[l], which stand for `count` rows.
template <class T>
void merge_block(const T* x, std::int64_t step, std::int64_t rows, std::int64_t lanes, double count,
                 double* __restrict mean, double* __restrict m2) {
  using C = detail::ComputeType<T>;
  C pivot[kTileLanes], sum[kTileLanes], square[kTileLanes];
  for (std::int64_t tile = 0; tile < lanes; tile += kTileLanes) {
    const std::int64_t n = std::min(kTileLanes, lanes - tile);
    for (std::int64_t l = 0; l < n; ++l) {
      pivot[l] = static_cast<C>(x[tile + l]);
      sum[l] = square[l] = C(0);
    }
    add_deviations<T, C>(x + tile, step, rows, n, pivot, sum, square);
    const auto added = static_cast<double>(rows);
    const double all = count + added, inverse = 1 / added, share = added / all, cross = count * added / all;
    for (std::int64_t l = 0; l < n; ++l) {
      const double s = sum[l], moved = s * inverse;
      const double m2_here = static_cast<double>(square[l]) - s * moved;
      const double delta = static_cast<double>(pivot[l]) + moved - mean[tile + l];
      mean[tile + l] += delta * share;
      m2[tile + l] += (m2_here < 0 ? 0.0 : m2_here) + delta * delta * cross;
    }
  }
}

}  // namespace lamella::cpu
