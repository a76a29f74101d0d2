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
template <bool kPlanar, int kTapsH, int kTapsW, int kRowStep, int R, int U, class T>
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
  const std::int64_t taps_w = kTapsW > 0 ? kTapsW : a.taps_w;
  LAMELLA_UNROLL_TAPS for (std::int64_t kw = 0; kw < taps_w; ++kw) {
    const std::int64_t x = at.x + a.offsets[kw];
    if constexpr (kTapsH > 0) {
      if (!kPlanar && kRowStep == 1 && kw == 0 && a.rows_ahead) {
        LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
          constexpr std::int64_t kLine = 64 / sizeof(T);
          if ((x + x_of(u)) % kLine >= n) continue;
          LAMELLA_UNROLL for (int s = 0; s < R; ++s) {
            __builtin_prefetch(rows[R - 1 + kTapsH + s] + x + x_of(u), 0, 2);
          }
        }
      }
      // Taps in groups so small that their weights fit the registers beside the sums.
      constexpr int kGroup = U > 2 ? 3 : kTapsH;  // NOLINT(bugprone-branch-clone): the same for three taps
      LAMELLA_UNROLL for (int first = 0; first < kTapsH; first += kGroup) {
        const int last = first + kGroup < kTapsH ? first + kGroup : kTapsH;
        V weight[kGroup];
        LAMELLA_UNROLL for (int kh = first; kh < last; ++kh) {
          weight[kh - first] = kPlanar ? hn::Set(d, w[kh]) : hn::LoadU(d, w + kh * weight_step);
        }
        LAMELLA_UNROLL for (int s = first; s < (R - 1) * kRowStep + last; ++s) {
          const T* HWY_RESTRICT source = rows[s] + x;
          LAMELLA_UNROLL for (int u = 0; u < U; ++u) {
            V value = hn::LoadU(d, source + x_of(u));
            hold_in_register(value);
            LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
              const int kh = s - r * kRowStep;
              if (kh >= first && kh < last) sum[r][u] = hn::MulAdd(value, weight[kh - first], sum[r][u]);
            }
          }
        }
      }
      w += kTapsH * weight_step;
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
  if (HWY_LIKELY(at.lanes >= (kPlanar ? U * n : n))) {
    if (a.accumulate) {
      LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
        LAMELLA_UNROLL for (int u = 0; u < U; ++u) sum[r][u] =
            hn::Add(sum[r][u], hn::LoadU(d, out[r] + y_of(u)));
      }
    }
    LAMELLA_UNROLL for (int r = 0; r < R; ++r) {
      LAMELLA_UNROLL for (int u = 0; u < U; ++u) hn::StoreU(sum[r][u], d, out[r] + y_of(u));
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

// Lines into the second-level cache.
template <int kLines>
HWY_INLINE void prefetch_lines(const std::byte*& ahead, const std::byte* end) {
  if (ahead >= end) return;
  LAMELLA_UNROLL for (int line = 0; line < kLines; ++line) __builtin_prefetch(ahead + 64 * line, 0, 2);
  ahead += 64 * kLines;
}

// Every column and channel of R rows. A vector that would stick out of the row is moved back over the one
// before where that writes the same values twice, because masked stores are slow on some CPUs; it is masked
// only where rows are shorter than a vector, or added to.
template <bool kPlanar, int kTapsH, int kTapsW, int kRowStep, int R, int U, class T>
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
      correlate_tile<true, kTapsH, kTapsW, kRowStep, R, U>(a, rows, out, place);
      prefetch_lines<R * U / 2 * kRowStep>(ahead, a.ahead_end);
    }
    if constexpr (U > 2) {
      for (; x + n < length; x += 2 * n) {
        const std::int64_t last_at = std::min(n, last - x);
        const TilePlace place{a.first_in + x, a.first_out + x,           0, n, last_at, n,
                              last_at,        whole ? 2 * n : length - x};
        correlate_tile<true, kTapsH, kTapsW, kRowStep, R, 2>(a, rows, out, place);
      }
    }
    for (; x < length; x += n) {
      const std::int64_t x0 = std::min(x, last);
      const TilePlace place{a.first_in + x0, a.first_out + x0, 0, 0, 0, 0, 0, whole ? n : length - x};
      correlate_tile<true, kTapsH, kTapsW, kRowStep, R, 1>(a, rows, out, place);
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
                   HWY_ATTR { correlate_tile<false, kTapsH, kTapsW, kRowStep, R, U>(a, rows, out, at); },
               place);
    }
    if constexpr (U > 2) {
      for (; j + 2 <= a.columns; j += 2) {
        const TilePlace place{a.first_in + j * a.in_column_step,
                              a.first_out + j * a.out_column_step,
                              0,
                              a.in_column_step,
                              a.in_column_step,
                              a.out_column_step,
                              a.out_column_step,
                              0};
        channels([&](const TilePlace& at)
                     HWY_ATTR { correlate_tile<false, kTapsH, kTapsW, kRowStep, R, 2>(a, rows, out, at); },
                 place);
      }
    }
    for (; j < a.columns; ++j) {
      const TilePlace place{
          a.first_in + j * a.in_column_step, a.first_out + j * a.out_column_step, 0, 0, 0, 0, 0, 0};
      channels([&](const TilePlace& at)
                   HWY_ATTR { correlate_tile<false, kTapsH, kTapsW, kRowStep, R, 1>(a, rows, out, at); },
               place);
    }
  }
}

template <bool kPlanar, int kTapsH, int kTapsW, int kRowStep, class T>
void correlate(const CorrelateArgs<T>& a) {
  std::int64_t i = 0;
  const std::byte* ahead = a.ahead;
  const T* const* rows = a.rows + (kTapsH > 0 ? a.tap_rows[0] : 0);
  for (; i + 4 <= a.row_count; i += 4) {
    correlate_rows<kPlanar, kTapsH, kTapsW, kRowStep, 4, (kTapsW > 0 ? 3 : 2)>(a, rows + i * a.row_step,
                                                                               a.out + i, ahead);
  }
  for (; i + 2 <= a.row_count; i += 2) {
    correlate_rows<kPlanar, 0, 0, 1, 2, 2>(a, a.rows + i * a.row_step, a.out + i, ahead);
  }
  if (i < a.row_count) correlate_rows<kPlanar, 0, 0, 1, 1, 2>(a, a.rows + i * a.row_step, a.out + i, ahead);
}

template <bool kPlanar, class T>
CorrelateFn<T> correlate_for(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step,
                             bool consecutive) {
  const bool square = taps_h == taps_w;
  if (consecutive && row_step == 1) {
    if (taps_h == 2) return correlate<kPlanar, 2, 0, 1, T>;
    if (taps_h == 3) return square ? correlate<kPlanar, 3, 3, 1, T> : correlate<kPlanar, 3, 0, 1, T>;
  }
  if (consecutive && row_step == 2 && taps_h == 3) return correlate<kPlanar, 3, 0, 2, T>;
  if constexpr (sizeof(T) == 4) {  // float64 is for checking rather than for speed: fewer loops to compile
    if (consecutive && row_step == 1) {
      if (taps_h == 4) return correlate<kPlanar, 4, 0, 1, T>;
      if (taps_h == 5) return correlate<kPlanar, 5, 0, 1, T>;
      if (taps_h == 7) return correlate<kPlanar, 7, 0, 1, T>;
    }
    if (consecutive && row_step == 2) {
      if (taps_h == 5) return correlate<kPlanar, 5, 0, 2, T>;
      if (taps_h == 7) return correlate<kPlanar, 7, 0, 2, T>;
    }
  }
  return correlate<kPlanar, 0, 0, 1, T>;
}

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
