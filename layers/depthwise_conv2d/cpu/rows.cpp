#include "layers/depthwise_conv2d/cpu/rows.h"

#include <algorithm>
#include <type_traits>

#include "layers/depthwise_conv2d/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/depthwise_conv2d/cpu/rows.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lamella::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int64_t kPiece = 256;  // elements converted at a time; even

template <class S>
void widen(const S* HWY_RESTRICT from, S* HWY_RESTRICT to, std::int64_t count) {
  const hn::ScalableTag<S> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + n <= count; i += n) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
  if (i < count && count >= n) {  // the last vector overlaps the one before
    hn::StoreU(hn::LoadU(d, from + count - n), d, to + count - n);
    return;
  }
  for (; i < count; ++i) to[i] = from[i];
}
inline void widen(const BFloat16* HWY_RESTRICT from, float* HWY_RESTRICT to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
}
inline void widen(const Float16* HWY_RESTRICT from, float* HWY_RESTRICT to, std::int64_t count) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> half;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + n <= count; i += n) {
    hn::StoreU(hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from + i))), d,
               to + i);
  }
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

template <class S>
void narrow(const S* HWY_RESTRICT from, S* HWY_RESTRICT to, std::int64_t count) {
  widen(from, to, count);
}
inline void narrow(const float* HWY_RESTRICT from, BFloat16* HWY_RESTRICT to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = BFloat16(from[i]);
}
inline void narrow(const float* HWY_RESTRICT from, Float16* HWY_RESTRICT to, std::int64_t count) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> half;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + n <= count; i += n) {
    hn::StoreU(hn::DemoteTo(half, hn::LoadU(d, from + i)), half, reinterpret_cast<hwy::float16_t*>(to + i));
  }
  for (; i < count; ++i) to[i] = Float16(from[i]);
}

// Even elements to `even`, odd ones to `odd`.
template <class T>
void split_pairs(const T* HWY_RESTRICT from, T* HWY_RESTRICT even, T* HWY_RESTRICT odd, std::int64_t count) {
  const hn::ScalableTag<T> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + 2 * n <= count; i += 2 * n) {
    hn::Vec<decltype(d)> a, b;
    hn::LoadInterleaved2(d, from + i, a, b);
    hn::StoreU(a, d, even + i / 2);
    hn::StoreU(b, d, odd + i / 2);
  }
  for (; i < count; ++i) (i % 2 == 0 ? even : odd)[i / 2] = from[i];
}

// Copies past the caches; what does not fill an aligned vector is copied the usual way.
template <class T>
void copy_streaming(const T* HWY_RESTRICT from, T* HWY_RESTRICT to, std::int64_t count) {
  const hn::ScalableTag<T> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i < count && reinterpret_cast<std::uintptr_t>(to + i) % 64 != 0; ++i) to[i] = from[i];
  for (; i + n <= count; i += n) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  for (; i < count; ++i) to[i] = from[i];
}

template <class T>
void join_pairs(const T* HWY_RESTRICT even, const T* HWY_RESTRICT odd, T* HWY_RESTRICT to,
                std::int64_t count) {
  const hn::ScalableTag<T> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + 2 * n <= count; i += 2 * n) {
    hn::StoreInterleaved2(hn::LoadU(d, even + i / 2), hn::LoadU(d, odd + i / 2), d, to + i);
  }
  for (; i < count; ++i) to[i] = (i % 2 == 0 ? even : odd)[i / 2];
}

template <class S, class T>
void stage_planar_row(const StageArgs<T>& a, const S* from, T* out) {
  const bool dense = a.column_step == 1;
  if (dense && a.phases == 1) {
    widen(from, out + a.first, a.columns);
    return;
  }
  T piece[kPiece];
  for (std::int64_t begin = 0; begin < a.columns; begin += kPiece) {
    const std::int64_t count = std::min(kPiece, a.columns - begin);
    const T* values = piece;
    if (dense) {
      if constexpr (std::is_same_v<S, T>) {
        values = from + begin;
      } else {
        widen(from + begin, piece, count);
      }
    } else {
      for (std::int64_t j = 0; j < count; ++j) piece[j] = static_cast<T>(from[(begin + j) * a.column_step]);
    }
    const std::int64_t q = a.first + begin;
    if (a.phases == 1) {
      std::copy(values, values + count, out + q);
    } else if (a.phases == 2) {
      T* even = out + (q % 2) * a.phase_size + q / 2;
      T* odd = out + ((q + 1) % 2) * a.phase_size + (q + 1) / 2;
      split_pairs(values, even, odd, count);
    } else {
      for (std::int64_t j = 0; j < count; ++j) {
        out[((q + j) % a.phases) * a.phase_size + (q + j) / a.phases] = values[j];
      }
    }
  }
}

template <class S, class T>
void stage_pixels(const StageArgs<T>& a, const S* from, T* out) {
  const std::int64_t width = a.channels * a.repeat;
  out += a.first * width;
  if (a.repeat == 1 && a.column_step == a.channels) {
    widen(from, out, a.columns * a.channels);
    return;
  }
  for (std::int64_t j = 0; j < a.columns; ++j, from += a.column_step, out += width) {
    if (a.repeat == 1) {
      widen(from, out, a.channels);
      continue;
    }
    for (std::int64_t c = 0; c < a.channels; ++c) {
      for (std::int64_t r = 0; r < a.repeat; ++r) out[c * a.repeat + r] = static_cast<T>(from[c]);
    }
  }
}

template <class S, class T>
void stage_as(const StageArgs<T>& a) {
  const S* from = static_cast<const S*>(a.source);
  for (std::int64_t i = 0; i < a.row_count; ++i) {
    if (a.channels * a.repeat == 1) {
      stage_planar_row(a, from + i * a.row_step, a.out + i * a.out_row_step);
    } else {
      stage_pixels(a, from + i * a.row_step, a.out + i * a.out_row_step);
    }
  }
}

// Writes or adds `count` finished values to neighbours in memory.
template <class S, class T>
void emit(const T* from, S* to, std::int64_t count, bool accumulate) {
  if (!accumulate) {
    narrow(from, to, count);
    return;
  }
  T piece[kPiece];
  for (std::int64_t begin = 0; begin < count; begin += kPiece) {
    const std::int64_t length = std::min(kPiece, count - begin);
    widen(to + begin, piece, length);
    for (std::int64_t i = 0; i < length; ++i) piece[i] += from[begin + i];
    narrow(piece, to + begin, length);
  }
}

template <class S, class T>
void store_planar_row(const StoreArgs<T>& a, S* out) {
  const bool dense = a.out_column_step == 1;
  if constexpr (std::is_same_v<S, T>) {
    if (a.stream && dense && a.phases == 1) return copy_streaming(a.source, out, a.columns);
  }
  if (dense && a.phases == 1) {
    emit(a.source, out, a.columns, a.accumulate);
    return;
  }
  if constexpr (std::is_same_v<S, T>) {
    if (dense && a.phases == 2 && !a.accumulate) {
      join_pairs(a.source, a.source + a.phase_size, out, a.columns);
      return;
    }
  }
  T piece[kPiece];
  for (std::int64_t begin = 0; begin < a.columns; begin += kPiece) {
    const std::int64_t count = std::min(kPiece, a.columns - begin);
    if (a.phases == 2) {
      join_pairs(a.source + begin / 2, a.source + a.phase_size + begin / 2, piece, count);
    } else {
      for (std::int64_t j = 0; j < count; ++j) {
        piece[j] = a.source[((begin + j) % a.phases) * a.phase_size + (begin + j) / a.phases];
      }
    }
    if (dense) {
      emit(piece, out + begin, count, a.accumulate);
      continue;
    }
    for (std::int64_t j = 0; j < count; ++j) {
      S& target = out[(begin + j) * a.out_column_step];
      target = static_cast<S>(a.accumulate ? static_cast<T>(target) + piece[j] : piece[j]);
    }
  }
}

template <class S, class T>
void store_pixels(const StoreArgs<T>& a, S* out) {
  const T* from = a.source;
  if (a.reduce == 1 && a.out_column_step == a.channels) {
    if constexpr (std::is_same_v<S, T>) {
      if (a.stream) return copy_streaming(from, out, a.columns * a.channels);
    }
    emit(from, out, a.columns * a.channels, a.accumulate);
    return;
  }
  for (std::int64_t j = 0; j < a.columns; ++j, from += a.channels * a.reduce, out += a.out_column_step) {
    if (a.reduce == 1) {
      emit(from, out, a.channels, a.accumulate);
      continue;
    }
    for (std::int64_t c = 0; c < a.channels; ++c) {
      T sum = from[c * a.reduce];
      for (std::int64_t r = 1; r < a.reduce; ++r) sum += from[c * a.reduce + r];
      out[c] = static_cast<S>(a.accumulate ? static_cast<T>(out[c]) + sum : sum);
    }
  }
}

template <class S, class T>
void store_as(const StoreArgs<T>& a) {
  S* out = static_cast<S*>(a.out);
  if (a.channels * a.reduce == 1) {
    store_planar_row(a, out);
  } else {
    store_pixels(a, out);
  }
}

void stage_float(const StageArgs<float>& a) {
  switch (a.dtype) {
    case DType::BFloat16:
      return stage_as<BFloat16>(a);
    case DType::Float16:
      return stage_as<Float16>(a);
    default:
      return stage_as<float>(a);
  }
}
void stage_double(const StageArgs<double>& a) { stage_as<double>(a); }
void flush() { hwy::FlushStream(); }
void store_float(const StoreArgs<float>& a) {
  switch (a.dtype) {
    case DType::BFloat16:
      return store_as<BFloat16>(a);
    case DType::Float16:
      return store_as<Float16>(a);
    default:
      return store_as<float>(a);
  }
}
void store_double(const StoreArgs<double>& a) { store_as<double>(a); }

}  // namespace lamella::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamella::cpu {
HWY_EXPORT(stage_float);
HWY_EXPORT(stage_double);
HWY_EXPORT(store_float);
HWY_EXPORT(store_double);
HWY_EXPORT(flush);
void flush_streams() { HWY_DYNAMIC_DISPATCH(flush)(); }
template <>
void stage_rows<float>(const StageArgs<float>& args) {
  HWY_DYNAMIC_DISPATCH(stage_float)(args);
}
template <>
void stage_rows<double>(const StageArgs<double>& args) {
  HWY_DYNAMIC_DISPATCH(stage_double)(args);
}
template <>
void store_row<float>(const StoreArgs<float>& args) {
  HWY_DYNAMIC_DISPATCH(store_float)(args);
}
template <>
void store_row<double>(const StoreArgs<double>& args) {
  HWY_DYNAMIC_DISPATCH(store_double)(args);
}
}  // namespace lamella::cpu
#endif
