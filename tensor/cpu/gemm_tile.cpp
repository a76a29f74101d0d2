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
constexpr std::int64_t kSmallBlock = 12;
// With so few rows of a, a row-major b is read in place.
constexpr std::int64_t kDirectRows = 48;
// With so few columns of b, a column-major a is read in place.
constexpr std::int64_t kDirectColumns = 32;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace
}  // namespace lamella::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One panel of b: U vectors wide, of which `columns` exist; row p begins at b[p * b_step].
template <class T>
struct Panel {
  const T* b;
  std::int64_t b_step;
  std::int64_t columns;
  bool fetch_rows;  // the first to use rows that lie densely: short ones are no stream to the hardware
};

// Rows of a, taken in groups of kRows. In a group, element (i, p) is a[i * step + p]; or, where the rows lie
// side by side, a[p * step + i], and then the last group is complete, too.
template <class T>
struct Rows {
  const T* a;
  std::int64_t step;
  std::int64_t group_step;
  std::int64_t count;
};

// kRows rows of c times a panel, in registers.
template <int U, bool kSideBySide, class T>
HWY_INLINE void multiply_group(std::int64_t k, const T* a, std::int64_t a_step, std::int64_t rows,
                               const Panel<T>& panel, T* c, std::int64_t c_row, bool accumulate) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V sum[kRows][U];
  const T* row[kRows];
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) {
    row[i] = kSideBySide ? a : a + std::min<std::int64_t>(i, rows - 1) * a_step;
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) sum[i][u] = hn::Zero(d);
  }
  // The next group's part of c would otherwise be waited for.
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) __builtin_prefetch(c + (kRows + i) * c_row, 1);
  const T* HWY_RESTRICT b = panel.b;
#pragma GCC unroll 4
  for (std::int64_t p = 0; p < k; ++p, b += panel.b_step) {
    V right[U];
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) right[u] = hn::LoadU(d, b + u * lanes);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const V left = hn::Set(d, kSideBySide ? a[i] : row[i][p]);
#pragma GCC unroll 2
      for (int u = 0; u < U; ++u) sum[i][u] = hn::MulAdd(left, right[u], sum[i][u]);
    }
    if (kSideBySide) a += a_step;
  }
  if (rows == kRows && panel.columns == U * lanes) {
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i, c += c_row) {
#pragma GCC unroll 2
      for (int u = 0; u < U; ++u) {
        if (accumulate) sum[i][u] = hn::Add(sum[i][u], hn::LoadU(d, c + u * lanes));
        hn::StoreU(sum[i][u], d, c + u * lanes);
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
  for (std::int64_t i = 0; i < rows; ++i, c += c_row)
    for (std::int64_t j = 0; j < panel.columns; ++j)
      c[j] = accumulate ? whole[i * kLaneLimit + j] + c[j] : whole[i * kLaneLimit + j];
}

template <int U, bool kSideBySide, class T>
void multiply_panel(std::int64_t k, const Rows<T>& rows, const Panel<T>& panel, T* c, std::int64_t c_row,
                    bool accumulate) {
  const T* a = rows.a;
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t i = 0; i < rows.count; i += kRows, a += rows.group_step, c += kRows * c_row) {
    if (!kSideBySide && panel.fetch_rows)
      for (std::int64_t p = 0; p < kRows * k; p += kLine) __builtin_prefetch(a + 2 * rows.group_step + p);
    multiply_group<U, kSideBySide>(k, a, rows.step, std::min(kRows, rows.count - i), panel, c, c_row,
                                   accumulate);
  }
}

// Writes the transpose of a small square of b, whose rows are `step` apart.
template <class T>
HWY_INLINE void transpose_block(const T* b, std::int64_t step, T* HWY_RESTRICT out, std::int64_t width) {
  const hn::FixedTag<T, 16 / sizeof(T)> d;
  if constexpr (sizeof(T) == 8) {
    const auto r0 = hn::LoadU(d, b), r1 = hn::LoadU(d, b + step);
    hn::StoreU(hn::InterleaveLower(d, r0, r1), d, out);
    hn::StoreU(hn::InterleaveUpper(d, r0, r1), d, out + width);
  } else {
    const auto r0 = hn::LoadU(d, b), r1 = hn::LoadU(d, b + step);
    const auto r2 = hn::LoadU(d, b + 2 * step), r3 = hn::LoadU(d, b + 3 * step);
    const auto low01 = hn::InterleaveLower(d, r0, r1), low23 = hn::InterleaveLower(d, r2, r3);
    const auto high01 = hn::InterleaveUpper(d, r0, r1), high23 = hn::InterleaveUpper(d, r2, r3);
    hn::StoreU(hn::ConcatLowerLower(d, low23, low01), d, out);
    hn::StoreU(hn::ConcatUpperUpper(d, low23, low01), d, out + width);
    hn::StoreU(hn::ConcatLowerLower(d, high23, high01), d, out + 2 * width);
    hn::StoreU(hn::ConcatUpperUpper(d, high23, high01), d, out + 3 * width);
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
  constexpr std::int64_t kBlock = 16 / static_cast<std::int64_t>(sizeof(T));
  constexpr std::int64_t kStrip = 16;  // written lines stay in the L1 until they are full
  for (std::int64_t begin = 0; begin < k; begin += kStrip) {
    const std::int64_t end = std::min(begin + kStrip, k);
    std::int64_t j = 0;
    if (b_row == 1)
      for (; j + kBlock <= columns; j += kBlock) {
        std::int64_t p = begin;
        for (; p + kBlock <= end; p += kBlock)
          transpose_block(b + p + j * b_column, b_column, out + p * width + j, width);
        for (; p < end; ++p)
          for (std::int64_t q = j; q < j + kBlock; ++q) out[p * width + q] = b[p + q * b_column];
      }
    for (; j < columns; ++j)
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

// The steps of one product, cut into pieces of at most kTileDepth terms.
template <class T>
class Multiplier {
 public:
  explicit Multiplier(const TileProduct<T>& x)
      : x_(x), lanes_(static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()))) {}

  void run() {
    const std::int64_t pieces = (x_.k + kTileDepth - 1) / kTileDepth;
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      begin_ = x_.k * piece / pieces;
      k_ = x_.k * (piece + 1) / pieces - begin_;
      accumulate_ = x_.accumulate || piece > 0;
      const std::int64_t block =
          x_.n * k_ * static_cast<std::int64_t>(sizeof(T)) <= 16384 ? kSmallBlock : kRowBlock;
      for (std::int64_t i = 0; i < x_.m; i += block) run_rows(i, std::min(block, x_.m - i));
    }
  }

 private:
  void run_rows(std::int64_t i, std::int64_t count) {
    const T* const a = x_.a + i * x_.a_row + begin_ * x_.a_column;
    Rows<T> rows{a, x_.a_row, kRows * x_.a_row, count};
    if (x_.a_column == 1) {
      multiply<false>(i, 0, rows);
      return;
    }
    // Packing pays if there are panels enough to use it; but a group that is not complete must not be read in
    // place.
    std::int64_t in_place = 0;
    if (x_.a_row == 1 && x_.n <= kDirectColumns) {
      in_place = count / kRows * kRows;
      rows = {a, x_.a_column, kRows, in_place};
      multiply<true>(i, 0, rows);
    }
    if (in_place == count) return;
    T* const packed = x_.workspace + round_up(x_.n, kLaneLimit) * k_;
    pack_rows(a + in_place * x_.a_row, x_.a_row, x_.a_column, k_, count - in_place, packed);
    rows = {packed, kRows, kRows * k_, count - in_place};
    multiply<true>(i, in_place, rows);
  }

  // Rows first + offset … of c.
  template <bool kSideBySide>
  void multiply(std::int64_t first, std::int64_t offset, const Rows<T>& rows) {
    for (std::int64_t j = 0; j < x_.n; j += 2 * lanes_) {
      const std::int64_t columns = std::min(2 * lanes_, x_.n - j), width = round_up(columns, lanes_);
      const T* const b = x_.b + begin_ * x_.b_row + j * x_.b_column;
      Panel<T> panel{b, x_.b_row, columns, j == 0 && x_.k == k_ && x_.a_row == k_};
      if (x_.b_column != 1 || columns < width || x_.m > kDirectRows) {
        T* const packed = x_.workspace + j * k_;
        panel.b = packed;
        panel.b_step = width;
        if (first == 0 && offset == 0) pack_panel(b, x_.b_row, x_.b_column, k_, columns, width, packed);
      }
      T* const c = x_.c + (first + offset) * x_.c_row + j;
      if (width > lanes_)
        multiply_panel<2, kSideBySide>(k_, rows, panel, c, x_.c_row, accumulate_);
      else
        multiply_panel<1, kSideBySide>(k_, rows, panel, c, x_.c_row, accumulate_);
    }
  }

  const TileProduct<T>& x_;
  const std::int64_t lanes_;
  std::int64_t begin_ = 0, k_ = 0;
  bool accumulate_ = false;
};

void multiply_f32(const TileProduct<float>& product) { Multiplier<float>(product).run(); }
void multiply_f64(const TileProduct<double>& product) { Multiplier<double>(product).run(); }

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
