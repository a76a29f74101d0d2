// Included once per vector target by gradient_f32.cpp and gradient_f64.cpp.
#if defined(LAMELLA_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMELLA_GRADIENT_INL_H_
#undef LAMELLA_GRADIENT_INL_H_
#else
#define LAMELLA_GRADIENT_INL_H_
#endif

#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/registers-inl.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// How the loads of a step are guarded.
enum class Guard {
  None,
  Columns,  // channels-last: taps whose column lies outside the row are left out
  Lanes     // planar: what lies behind the row, which may be NaN, is left out of both factors
};

// A x B sums over R rows of x at a time, walked column by column. In channels-last tensors neighbouring
// columns often fall into the same few sets of the cache: what is shared between rows must be used while it
// is there.
template <int A, int B, int R, class T>
struct GradientTile {
  using D = hn::ScalableTag<T>;
  using V = hn::Vec<D>;
  static constexpr int kWindow = R + A - 1;  // rows of g that R rows of x meet
  // Few sums: two sets, for odd and even rows or steps, hide the latency of the adds.
  static constexpr int kSets = A * B <= 4 ? 2 : 1;

  const GradientArgs<T>& args;
  const T* x[R];
  const T* g[kWindow];
  V sum[kSets][A][B];

  HWY_INLINE explicit GradientTile(const GradientArgs<T>& a) : args(a) {
    LAMELLA_UNROLL for (int set = 0; set < kSets; ++set) {
      LAMELLA_UNROLL for (int i = 0; i < A; ++i) {
        LAMELLA_UNROLL for (int b = 0; b < B; ++b) sum[set][i][b] = hn::Zero(D());
      }
    }
  }

  HWY_INLINE void to_row(std::int64_t row) {
    LAMELLA_UNROLL for (int r = 0; r < R; ++r) x[r] = args.x_rows[row + r] + args.x_offset;
    LAMELLA_UNROLL for (int w = 0; w < kWindow; ++w) {
      const std::int64_t tap_row = R > 1 ? args.tap_rows[0] + w : args.tap_rows[w];
      g[w] = args.g_rows[row + tap_row] + args.g_offset;
    }
  }

  template <Guard kGuard, int kSet, class Mask>
  HWY_INLINE void step(std::int64_t column, std::int64_t xi, std::int64_t gi, Mask mask) {
    const D d;
    V grad[kWindow];
    LAMELLA_UNROLL for (int w = 0; w < kWindow; ++w) {
      if constexpr (kGuard == Guard::Lanes) {
        grad[w] = hn::MaskedLoad(mask, d, g[w] + gi);
      } else {
        grad[w] = hn::LoadU(d, g[w] + gi);
        hold_in_register(grad[w]);
      }
    }
    LAMELLA_UNROLL for (int b = 0; b < B; ++b) {
      if constexpr (kGuard == Guard::Columns) {
        const std::int64_t source = column * args.column_stride + args.tap_columns[b];
        if (source < 0 || source >= args.source_columns) continue;
      }
      const std::int64_t at = xi + args.offsets[b];
      LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
        V value;
        if constexpr (kGuard == Guard::Lanes) {
          value = hn::MaskedLoad(mask, d, x[r] + at);
        } else {
          value = hn::LoadU(d, x[r] + at);
          hold_in_register(value);
        }
        LAMELLA_UNROLL for (int a = 0; a < A; ++a) {
          constexpr auto set = [](int row) { return (row + kSet) % kSets; };
          sum[set(r)][a][b] = hn::MulAdd(value, grad[r + a], sum[set(r)][a][b]);
        }
      }
    }
  }

  HWY_INLINE void finish() {
    const D d;
    LAMELLA_UNROLL for (int a = 0; a < A; ++a) {
      LAMELLA_UNROLL for (int b = 0; b < B; ++b) {
        if constexpr (kSets == 2) sum[0][a][b] = hn::Add(sum[0][a][b], sum[1][a][b]);
        T* target = args.sums[a] + args.sum_offset + b * args.sum_step;
        hn::StoreU(hn::Add(hn::LoadU(d, target), sum[0][a][b]), d, target);
      }
    }
  }
};

template <bool kPlanar, int A, int B, int R, class T>
void gradient_rows(const GradientArgs<T>& args, std::int64_t first_row, std::int64_t last_row) {
  const hn::ScalableTag<T> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  GradientTile<A, B, R, T> tile(args);
  const std::int64_t columns = args.columns;
  for (std::int64_t row = first_row; row < last_row; row += R) {
    tile.to_row(row);
    if constexpr (kPlanar) {
      std::int64_t j = 0;
      if constexpr (GradientTile<A, B, R, T>::kSets == 2) {
        for (; j + 2 * n <= columns; j += 2 * n) {
          tile.template step<Guard::None, 0>(j, j, j, 0);
          tile.template step<Guard::None, 1>(j, j + n, j + n, 0);
        }
      }
      for (; j + n <= columns; j += n) tile.template step<Guard::None, 0>(j, j, j, 0);
      if (j < columns) {
        tile.template step<Guard::Lanes, 0>(j, j, j, hn::FirstN(d, static_cast<std::size_t>(columns - j)));
      }
    } else {
      std::int64_t j = 0, xi = 0, gi = 0;
      const auto next = [&]() HWY_ATTR { ++j, xi += args.x_column_step, gi += args.g_column_step; };
      for (; j < args.inner_first; next()) {
        tile.template step<Guard::Columns, 0>(args.first_column + j, xi, gi, 0);
      }
      for (; j < args.inner_last; next()) {
        tile.template step<Guard::None, 0>(j, xi, gi, 0);
      }
      for (; j < columns; next()) tile.template step<Guard::Columns, 0>(args.first_column + j, xi, gi, 0);
    }
  }
  tile.finish();
}

template <bool kPlanar, int A, int B, class T>
void gradient(const GradientArgs<T>& args) {
  // Planar rows are long runs in memory, best taken one at a time. Of channels-last rows few lines may be
  // open at once, and they are open for a single column only if there is one column tap.
  constexpr int kShared = kPlanar ? 1 : B == 1 ? 2 : 4;
  std::int64_t done = 0;
  if constexpr (kShared > 1) {
    done = args.consecutive || A == 1 ? args.row_count / kShared * kShared : 0;
    if (done > 0) gradient_rows<kPlanar, A, B, kShared>(args, 0, done);
  }
  if (done < args.row_count) gradient_rows<kPlanar, A, B, 1>(args, done, args.row_count);
}

template <bool kPlanar, class T>
void sum_rows(const GradientArgs<T>& args) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t step = kPlanar ? n : 1, g_step = kPlanar ? n : args.g_column_step;
  V sum[4];
  LAMELLA_UNROLL for (int s = 0; s < 4; ++s) sum[s] = hn::Zero(d);
  for (std::int64_t i = 0; i < args.row_count; ++i) {
    const T* g = args.g_rows[i] + args.g_offset;
    std::int64_t j = 0;
    for (; j + 4 * step <= args.columns; j += 4 * step, g += 4 * g_step) {
      LAMELLA_UNROLL for (int s = 0; s < 4; ++s) sum[s] = hn::Add(sum[s], hn::LoadU(d, g + s * g_step));
    }
    for (; j + step <= args.columns; j += step, g += g_step) sum[0] = hn::Add(sum[0], hn::LoadU(d, g));
    if (kPlanar && j < args.columns) {
      sum[1] =
          hn::Add(sum[1], hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(args.columns - j)), d, g));
    }
  }
  const V total = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  T* target = args.sums[0] + args.sum_offset;
  hn::StoreU(hn::Add(hn::LoadU(d, target), total), d, target);
}

template <bool kPlanar, int A, class T>
GradientFn<T> gradient_of(std::int64_t column_taps) {
  switch (column_taps) {
    case 1:
      return gradient<kPlanar, A, 1, T>;
    case 2:
      return gradient<kPlanar, A, 2, T>;
    default:
      return gradient<kPlanar, A, 3, T>;
  }
}

template <class T>
GradientFn<T> gradient_any(bool planar, std::int64_t row_taps, std::int64_t column_taps) {
  switch (row_taps) {
    case 1:
      return planar ? gradient_of<true, 1, T>(column_taps) : gradient_of<false, 1, T>(column_taps);
    case 2:
      return planar ? gradient_of<true, 2, T>(column_taps) : gradient_of<false, 2, T>(column_taps);
    default:
      return planar ? gradient_of<true, 3, T>(column_taps) : gradient_of<false, 3, T>(column_taps);
  }
}

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
