// Included once per vector target by correlate_f32.cpp and correlate_f64.cpp.
#if defined(LAMELLA_CORRELATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMELLA_CORRELATE_INL_H_
#undef LAMELLA_CORRELATE_INL_H_
#else
#define LAMELLA_CORRELATE_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "layers/depthwise_conv2d/cpu/registers-inl.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Where a tile of U vectors lies: offsets in source and output rows of its first vector, steps to the others,
// and the distance of the last one, which may be moved back.
struct TilePlace {
  std::int64_t x, y, channel;
  std::int64_t x_step, x_last, y_step, y_last;
  std::int64_t lanes;  // to be stored: of the whole tile (planar) or of each vector
};

// R rows x U vectors of outputs, held in registers. kTapsH > 0: rows are consecutive, and each loaded source
// vector serves all the output rows it belongs to. kTapsH == 0: any rows, one load per multiply-add.
template <bool kPlanar, int kTapsH, int kRowStep, int R, int U, class T>
HWY_INLINE void correlate_tile(const CorrelateArgs<T>& a, const T* const* rows, T* const* out,
                               const TilePlace& at) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const auto x_of = [&](int u) HWY_ATTR { return u > 0 && u == U - 1 ? at.x_last : u * at.x_step; };
  const auto y_of = [&](int u) HWY_ATTR { return at.y + (u > 0 && u == U - 1 ? at.y_last : u * at.y_step); };
  V sum[R][U];
  V start = hn::Zero(d);
  if (a.bias != nullptr) start = kPlanar ? hn::Set(d, *a.bias) : hn::LoadU(d, a.bias + at.channel);
  LAMELLA_UNROLL for (int r = 0; r < R; ++r) { LAMELLA_UNROLL for (int u = 0; u < U; ++u) sum[r][u] = start; }
  const T* HWY_RESTRICT w = kPlanar ? a.weights : a.weights + at.channel;
  const std::int64_t weight_step = kPlanar ? 1 : a.weight_step;
  for (std::int64_t kw = 0; kw < a.taps_w; ++kw) {
    const std::int64_t x = at.x + a.offsets[kw];
    if constexpr (kTapsH > 0) {
      V weight[kTapsH];
      LAMELLA_UNROLL for (int kh = 0; kh < kTapsH; ++kh) {
        weight[kh] = kPlanar ? hn::Set(d, w[kh]) : hn::LoadU(d, w + kh * weight_step);
      }
      w += kTapsH * weight_step;
      if (!kPlanar && kw == 0 && a.rows_ahead) {
        LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
          constexpr std::int64_t kLine = 64 / sizeof(T);
          if ((x + x_of(u)) % kLine >= n) continue;
          LAMELLA_UNROLL for (int s = 0; s < R * kRowStep; ++s) {
            __builtin_prefetch(rows[(R - 1) * kRowStep + kTapsH + s] + x + x_of(u), 0, 2);
          }
        }
      }
      LAMELLA_UNROLL for (int s = 0; s < (R - 1) * kRowStep + kTapsH; ++s) {
        const T* HWY_RESTRICT source = rows[s] + x;
        LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
          V value = hn::LoadU(d, source + x_of(u));
          hold_in_register(value);
          LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
            const int kh = s - r * kRowStep;
            if (kh >= 0 && kh < kTapsH) sum[r][u] = hn::MulAdd(value, weight[kh], sum[r][u]);
          }
        }
      }
    } else {
      for (std::int64_t kh = 0; kh < a.taps_h; ++kh) {
        const V weight = kPlanar ? hn::Set(d, *w) : hn::LoadU(d, w);
        w += weight_step;
        const T* const* source_row = rows + a.tap_rows[kh];
        LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
          const T* HWY_RESTRICT source = source_row[r * a.row_step] + x;
          LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
            sum[r][u] = hn::MulAdd(hn::LoadU(d, source + x_of(u)), weight, sum[r][u]);
          }
        }
      }
    }
  }
  if (at.lanes >= (kPlanar ? U * n : n)) {
    LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
      LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
        T* target = out[r] + y_of(u);
        if (a.accumulate) sum[r][u] = hn::Add(sum[r][u], hn::LoadU(d, target));
        hn::StoreU(sum[r][u], d, target);
      }
    }
    return;
  }
  LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
    const auto mask =
        hn::FirstN(d, static_cast<std::size_t>(kPlanar ? std::min(at.lanes - u * n, n) : at.lanes));
    LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
      T* target = out[r] + y_of(u);
      if (a.accumulate) sum[r][u] = hn::Add(sum[r][u], hn::MaskedLoad(mask, d, target));
      hn::BlendedStore(sum[r][u], mask, d, target);
    }
  }
}

// Four lines into the second-level cache.
HWY_INLINE void prefetch_lines(const std::byte*& ahead, const std::byte* end) {
  if (ahead >= end) return;
  for (int line = 0; line < 4; ++line) __builtin_prefetch(ahead + 64 * line, 0, 2);
  ahead += 256;
}

// Every column and channel of R rows. A vector that would stick out of the row is moved back over the one
// before where that writes the same values twice, because masked stores are slow on some CPUs; it is masked
// only where rows are shorter than a vector, or added to.
template <bool kPlanar, int kTapsH, int kRowStep, int R, int U, class T>
HWY_INLINE void correlate_rows(const CorrelateArgs<T>& a, const T* const* rows, T* const* out,
                               const std::byte*& ahead) {
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::int64_t length = kPlanar ? a.columns : a.channels;
  const bool overlap = !a.accumulate && !a.padded_rows && length >= n;
  const std::int64_t last = overlap ? length - n : length;
  const bool whole = overlap || a.padded_rows;
  if constexpr (kPlanar) {
    std::int64_t x = 0;
    for (; x + (U - 1) * n < length; x += U * n) {
      const std::int64_t last_at = std::min((U - 1) * n, last - x);
      const TilePlace place{a.first_in + x, a.first_out + x,           0, n, last_at, n,
                            last_at,        whole ? U * n : length - x};
      correlate_tile<true, kTapsH, kRowStep, R, U>(a, rows, out, place);
      prefetch_lines(ahead, a.ahead_end);
    }
    for (; x < length; x += n) {
      const std::int64_t x0 = std::min(x, last);
      const TilePlace place{a.first_in + x0, a.first_out + x0, 0, 0, 0, 0, 0, whole ? n : length - x};
      correlate_tile<true, kTapsH, kRowStep, R, 1>(a, rows, out, place);
    }
  } else {
    std::int64_t j = 0;
    const auto channels = [&](auto tile, TilePlace place) HWY_ATTR {
      const std::int64_t x = place.x, y = place.y;
      for (std::int64_t c = 0; c < length; c += n) {
        place.channel = std::min(c, last);
        place.x = x + place.channel;
        place.y = y + place.channel;
        place.lanes = whole ? n : length - c;
        tile(place);
      }
    };
    for (; j + U <= a.columns; j += U) {
      const TilePlace place{a.first_in + j * a.in_column_step,
                            a.first_out + j * a.out_column_step,
                            0,
                            a.in_column_step,
                            (U - 1) * a.in_column_step,
                            a.out_column_step,
                            (U - 1) * a.out_column_step,
                            0};
      channels([&](const TilePlace& at)
                   HWY_ATTR { correlate_tile<false, kTapsH, kRowStep, R, U>(a, rows, out, at); },
               place);
    }
    for (; j < a.columns; ++j) {
      const TilePlace place{
          a.first_in + j * a.in_column_step, a.first_out + j * a.out_column_step, 0, 0, 0, 0, 0, 0};
      channels([&](const TilePlace& at)
                   HWY_ATTR { correlate_tile<false, kTapsH, kRowStep, R, 1>(a, rows, out, at); },
               place);
    }
  }
}

template <bool kPlanar, int kTapsH, int kRowStep, class T>
void correlate(const CorrelateArgs<T>& a) {
  std::int64_t i = 0;
  const std::byte* ahead = a.ahead;
  const T* const* rows = a.rows + (kTapsH > 0 ? a.tap_rows[0] : 0);
  for (; i + 4 <= a.row_count; i += 4) {
    correlate_rows<kPlanar, kTapsH, kRowStep, 4, 2>(a, rows + i * a.row_step, a.out + i, ahead);
  }
  for (; i + 2 <= a.row_count; i += 2) {
    correlate_rows<kPlanar, 0, 1, 2, 2>(a, a.rows + i * a.row_step, a.out + i, ahead);
  }
  if (i < a.row_count) correlate_rows<kPlanar, 0, 1, 1, 4>(a, a.rows + i * a.row_step, a.out + i, ahead);
}

template <bool kPlanar, class T>
CorrelateFn<T> correlate_of(std::int64_t taps_h, std::int64_t row_step, bool consecutive) {
  if (consecutive && row_step == 1) {
    switch (taps_h) {
      case 2:
        return correlate<kPlanar, 2, 1, T>;
      case 3:
        return correlate<kPlanar, 3, 1, T>;
      case 4:
        return correlate<kPlanar, 4, 1, T>;
      case 5:
        return correlate<kPlanar, 5, 1, T>;
      case 7:
        return correlate<kPlanar, 7, 1, T>;
      default:
        break;
    }
  }
  if (consecutive && row_step == 2) {
    switch (taps_h) {
      case 3:
        return correlate<kPlanar, 3, 2, T>;
      case 5:
        return correlate<kPlanar, 5, 2, T>;
      case 7:
        return correlate<kPlanar, 7, 2, T>;
      default:
        break;
    }
  }
  return correlate<kPlanar, 0, 1, T>;
}

template <class T>
CorrelateFn<T> correlate_any(bool planar, std::int64_t taps_h, std::int64_t row_step, bool consecutive) {
  return planar ? correlate_of<true, T>(taps_h, row_step, consecutive)
                : correlate_of<false, T>(taps_h, row_step, consecutive);
}

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
