#include "tensor/cpu/gemm_tile.h"

#include <algorithm>

#include "tensor/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/gemm_tile.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"

#ifndef LAMELLA_GEMM_TILE_CONSTANTS
#define LAMELLA_GEMM_TILE_CONSTANTS
namespace lamella::cpu {
namespace {

constexpr std::int64_t kRows = 6;        // of c held in registers
constexpr std::int64_t kLaneLimit = 32;  // at most so many columns in a panel of b
// Rows of a that are walked again for each panel of b: they should stay in the L2 beside b.
constexpr std::int64_t kRowBlock = 96;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace
}  // namespace lamella::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A value that several multiply-adds use. Where instructions can load and multiply-add at once, the compiler
// would load it for each of them.
template <class V>
HWY_INLINE void hold_in_register([[maybe_unused]] V& value) {
#if HWY_ARCH_X86 && defined(__GNUC__) && !defined(__clang__)
  asm("" : "+v"(value.raw));
#endif
}

// kRows rows times U vectors of c. Rows of a: `a[i][p]`, or interleaved, `a[0][p * kRows + i]`.
template <int U, bool kInterleaved, class T>
void multiply_registers(std::int64_t k, const T* const* a, const T* HWY_RESTRICT b, T* HWY_RESTRICT c,
                        std::int64_t c_row, std::int64_t rows, std::int64_t columns, bool accumulate) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V sum[kRows][U];
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) sum[i][u] = hn::Zero(d);
  }
  const T* const a0 = a[0];
  const T* const a1 = kInterleaved ? a0 : a[1];
  const T* const a2 = kInterleaved ? a0 : a[2];
  const T* const a3 = kInterleaved ? a0 : a[3];
  const T* const a4 = kInterleaved ? a0 : a[4];
  const T* const a5 = kInterleaved ? a0 : a[5];
  for (std::int64_t p = 0; p < k; ++p) {
    V right[U];
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) {
      right[u] = hn::LoadU(d, b + u * lanes);
      hold_in_register(right[u]);
    }
    b += U * lanes;
    const auto row = [&](const T* source, int i) HWY_ATTR {
      V left = hn::Set(d, kInterleaved ? source[p * kRows + i] : source[p]);
      hold_in_register(left);
#pragma GCC unroll 2
      for (int u = 0; u < U; ++u) sum[i][u] = hn::MulAdd(left, right[u], sum[i][u]);
    };
    row(a0, 0);
    row(a1, 1);
    row(a2, 2);
    row(a3, 3);
    row(a4, 4);
    row(a5, 5);
  }
  if (columns == U * lanes) {
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      if (i >= rows) break;
      T* const to = c + i * c_row;
#pragma GCC unroll 2
      for (int u = 0; u < U; ++u) {
        V value = sum[i][u];
        if (accumulate) value = hn::Add(value, hn::LoadU(d, to + u * lanes));
        hn::StoreU(value, d, to + u * lanes);
      }
    }
    return;
  }
  HWY_ALIGN T whole[kRows * kLaneLimit];
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) hn::StoreU(sum[i][u], d, whole + i * kLaneLimit + u * lanes);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    T* const to = c + i * c_row;
    for (std::int64_t j = 0; j < columns; ++j)
      to[j] = accumulate ? whole[i * kLaneLimit + j] + to[j] : whole[i * kLaneLimit + j];
  }
}

// k rows of `width` columns, of which `columns` exist; the others are zero.
template <class T>
void pack_panel(const T* b, std::int64_t b_row, std::int64_t b_column, std::int64_t k, std::int64_t columns,
                std::int64_t width, T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  if (b_column == 1 && columns == width) {
    for (std::int64_t p = 0; p < k; ++p, b += b_row, out += width)
      for (std::int64_t j = 0; j < width; j += lanes) hn::StoreU(hn::LoadU(d, b + j), d, out + j);
    return;
  }
  if (columns < width) std::fill(out, out + k * width, T(0));
  if (b_column == 1) {
    for (std::int64_t p = 0; p < k; ++p)
      for (std::int64_t j = 0; j < columns; ++j) out[p * width + j] = b[p * b_row + j];
    return;
  }
  constexpr std::int64_t kStrip = 16;  // written lines stay in the L1 until they are full
  for (std::int64_t begin = 0; begin < k; begin += kStrip) {
    const std::int64_t end = std::min(begin + kStrip, k);
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t p = begin; p < end; ++p) out[p * width + j] = b[p * b_row + j * b_column];
  }
}

// Groups of kRows rows, each interleaved; the last is filled up with zeros. Whole vectors are moved where so
// much can be read; what they write too much is written over by the next.
template <class T>
void pack_rows(const T* a, std::int64_t a_row, std::int64_t a_column, std::int64_t k, std::int64_t rows,
               T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (; rows > 0; rows -= kRows, a += kRows * a_row) {
    if (a_row == 1 && rows >= round_up(kRows, lanes)) {
      for (std::int64_t p = 0; p < k; ++p, out += kRows)
        for (std::int64_t i = 0; i < kRows; i += lanes)
          hn::StoreU(hn::LoadU(d, a + p * a_column + i), d, out + i);
      continue;
    }
    for (std::int64_t p = 0; p < k; ++p, out += kRows)
      for (std::int64_t i = 0; i < kRows; ++i) out[i] = i < rows ? a[i * a_row + p * a_column] : T(0);
  }
}

template <bool kInterleaved, class T>
void multiply_rows(const TileProduct<T>& x, std::int64_t rows, std::int64_t k, const T* a, const T* packed_b,
                   T* c, bool accumulate) {
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const auto group = [&](std::int64_t i, std::int64_t j) HWY_ATTR {
    const std::int64_t height = std::min(kRows, rows - i);
    const T* pointers[kRows];
    if constexpr (kInterleaved) {
      pointers[0] = a + i * k;
    } else {
      for (std::int64_t r = 0; r < kRows; ++r) pointers[r] = a + (i + std::min(r, height - 1)) * x.a_row;
    }
    const T* const b = packed_b + j * k;
    T* const to = c + i * x.c_row + j;
    if (x.n - j > lanes)
      multiply_registers<2, kInterleaved>(k, pointers, b, to, x.c_row, height, std::min(2 * lanes, x.n - j),
                                          accumulate);
    else
      multiply_registers<1, kInterleaved>(k, pointers, b, to, x.c_row, height, x.n - j, accumulate);
  };
  // Whichever is small enough stays in the L1 for the inner loop: all of b, or one panel of it.
  if (x.n * k * static_cast<std::int64_t>(sizeof(T)) <= 16384) {
    for (std::int64_t i = 0; i < rows; i += kRows)
      for (std::int64_t j = 0; j < x.n; j += 2 * lanes) group(i, j);
  } else {
    for (std::int64_t j = 0; j < x.n; j += 2 * lanes)
      for (std::int64_t i = 0; i < rows; i += kRows) group(i, j);
  }
}

template <class T>
void multiply(const TileProduct<T>& x) {
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::int64_t pieces = (x.k + kTileDepth - 1) / kTileDepth;
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = x.k * piece / pieces, k = x.k * (piece + 1) / pieces - begin;
    T* const packed_b = x.workspace;
    T* const packed_a = packed_b + round_up(x.n, kLaneLimit) * k;
    for (std::int64_t j = 0; j < x.n; j += 2 * lanes) {
      const std::int64_t columns = std::min(2 * lanes, x.n - j);
      pack_panel(x.b + begin * x.b_row + j * x.b_column, x.b_row, x.b_column, k, columns,
                 round_up(columns, lanes), packed_b + j * k);
    }
    const bool accumulate = x.accumulate || piece > 0;
    for (std::int64_t i = 0; i < x.m; i += kRowBlock) {
      const std::int64_t rows = std::min(kRowBlock, x.m - i);
      const T* const a = x.a + i * x.a_row + begin * x.a_column;
      T* const c = x.c + i * x.c_row;
      if (x.a_column == 1) {
        multiply_rows<false>(x, rows, k, a, packed_b, c, accumulate);
      } else {
        pack_rows(a, x.a_row, x.a_column, k, rows, packed_a);
        multiply_rows<true>(x, rows, k, packed_a, packed_b, c, accumulate);
      }
    }
  }
}

void multiply_f32(const TileProduct<float>& product) { multiply(product); }
void multiply_f64(const TileProduct<double>& product) { multiply(product); }

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {

HWY_EXPORT(multiply_f32);
HWY_EXPORT(multiply_f64);

template <>
void multiply_tile(const TileProduct<float>& product) {
  HWY_DYNAMIC_DISPATCH(multiply_f32)(product);
}
template <>
void multiply_tile(const TileProduct<double>& product) {
  HWY_DYNAMIC_DISPATCH(multiply_f64)(product);
}

std::int64_t tile_workspace(std::int64_t m, std::int64_t n, std::int64_t k) {
  return std::min(k, kTileDepth) * (round_up(n, kLaneLimit) + round_up(std::min(m, kRowBlock), kRows)) +
         kLaneLimit;
}

}  // namespace lamella::cpu
#endif
