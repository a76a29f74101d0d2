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

template <int A, int B, class T, class V>
HWY_INLINE void gradient_step(const T* const (&g)[A], const T* const (&x)[B], std::int64_t gi,
                              std::int64_t xi, V (&sum)[A][B]) {
  const hn::ScalableTag<T> d;
  V source[B];
  LAMELLA_UNROLL for (int b = 0; b < B; ++b) {
    source[b] = hn::LoadU(d, x[b] + xi);
    hold_in_register(source[b]);
  }
  LAMELLA_UNROLL for (int a = 0; a < A; ++a) {
    V grad = hn::LoadU(d, g[a] + gi);
    hold_in_register(grad);
    LAMELLA_UNROLL for (int b = 0; b < B; ++b) sum[a][b] = hn::MulAdd(grad, source[b], sum[a][b]);
  }
}

template <bool kPlanar, int A, int B, class T>
void gradient(const GradientArgs<T>& args) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  // Few accumulators: a second set hides the latency of the adds.
  constexpr int kSets = A * B <= 4 ? 2 : 1;
  V sum[A][B], second[A][B];
  LAMELLA_UNROLL for (int a = 0; a < A; ++a) {
    LAMELLA_UNROLL for (int b = 0; b < B; ++b) {
      sum[a][b] = hn::Zero(d);
      second[a][b] = hn::Zero(d);
    }
  }
  const std::int64_t columns = args.columns;
  const std::int64_t step = kPlanar ? n : 1;
  const std::int64_t g_step = kPlanar ? n : args.g_column_step, x_step = kPlanar ? n : args.x_column_step;
  for (std::int64_t i = 0; i < args.row_count; ++i) {
    const T* g[A];
    const T* x[B];
    LAMELLA_UNROLL for (int a = 0; a < A; ++a) g[a] = args.g_rows[i + args.tap_rows[a]] + args.g_offset;
    LAMELLA_UNROLL for (int b = 0; b < B; ++b) x[b] = args.x_rows[i] + args.x_offset + args.offsets[b];
    std::int64_t j = 0, gi = 0, xi = 0;
    for (; j + kSets * step <= columns; j += kSets * step) {
      gradient_step<A, B>(g, x, gi, xi, sum);
      if constexpr (kSets == 2) gradient_step<A, B>(g, x, gi + g_step, xi + x_step, second);
      gi += kSets * g_step;
      xi += kSets * x_step;
    }
    if (kSets == 2 && j + step <= columns) {
      gradient_step<A, B>(g, x, gi, xi, sum);
      j += step;
      gi += g_step;
      xi += x_step;
    }
    if (kPlanar && j < columns) {  // masked on both sides: what lies behind a row may be NaN
      const auto mask = hn::FirstN(d, static_cast<std::size_t>(columns - j));
      V source[B];
      LAMELLA_UNROLL for (int b = 0; b < B; ++b) source[b] = hn::MaskedLoad(mask, d, x[b] + xi);
      LAMELLA_UNROLL for (int a = 0; a < A; ++a) {
        const V grad = hn::MaskedLoad(mask, d, g[a] + gi);
        LAMELLA_UNROLL for (int b = 0; b < B; ++b) sum[a][b] = hn::MulAdd(grad, source[b], sum[a][b]);
      }
    }
  }
  LAMELLA_UNROLL for (int a = 0; a < A; ++a) {
    LAMELLA_UNROLL for (int b = 0; b < B; ++b) {
      if (kSets == 2) sum[a][b] = hn::Add(sum[a][b], second[a][b]);
      T* target = args.sums[a] + args.sum_offset + b * args.sum_step;
      hn::StoreU(hn::Add(hn::LoadU(d, target), sum[a][b]), d, target);
    }
  }
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
    case 3:
      return planar ? gradient_of<true, 3, T>(column_taps) : gradient_of<false, 3, T>(column_taps);
    default:
      return planar ? gradient_of<true, 4, T>(column_taps) : gradient_of<false, 4, T>(column_taps);
  }
}

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
