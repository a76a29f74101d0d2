#include "layers/conv/cpu/columns.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "lamella/core/dtype.h"

namespace lamella::cpu {
namespace {

/// Outputs [begin, end) whose tap lies inside the input: 0 <= i · stride + shift < in.
struct Span {
  std::int64_t begin, end;
};
Span inside(std::int64_t out, std::int64_t in, std::int64_t stride, std::int64_t shift) {
  const auto first_at_least = [&](std::int64_t position) {
    return position <= shift ? 0 : (position - shift + stride - 1) / stride;
  };
  const std::int64_t begin = std::min(first_at_least(0), out);
  return {begin, std::max(begin, std::min(first_at_least(in), out))};
}

template <class S, class T>
void copy_run(const S* from, T* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(from[i]);
}
template <class T>
void clear_run(T* to, std::int64_t count) {
  std::fill_n(to, count, T(0));
}

template <class S, class T>
void gather_channels_last(const ColumnBlock& block, const S* image, T* columns) {
  const Conv2dGeometry& g = block.geometry;
  const std::int64_t channels = block.channels, row_of_taps = g.kernel.w * channels,
                     width = block.taps() * channels;
  // Neighbouring taps of all channels are neighbours in memory.
  const bool merged = g.dilation.w == 1 && channels == g.in_channels;
  for (std::int64_t oh = block.first; oh < block.last; ++oh) {
    for (std::int64_t kh = 0; kh < g.kernel.h; ++kh) {
      T* to = columns + (oh - block.first) * g.out.w * width + kh * row_of_taps;
      const std::int64_t ih = oh * g.stride.h - g.padding.h + kh * g.dilation.h;
      if (ih < 0 || ih >= g.in.h) {
        for (std::int64_t ow = 0; ow < g.out.w; ++ow, to += width) clear_run(to, row_of_taps);
        continue;
      }
      const S* const row = image + ih * g.in.w * g.in_channels;
      for (std::int64_t ow = 0; ow < g.out.w; ++ow, to += width) {
        const std::int64_t iw = ow * g.stride.w - g.padding.w;
        if (merged && iw >= 0 && iw + g.kernel.w <= g.in.w) {
          copy_run(row + iw * channels, to, row_of_taps);
          continue;
        }
        for (std::int64_t kw = 0; kw < g.kernel.w; ++kw) {
          const std::int64_t at = iw + kw * g.dilation.w;
          if (at >= 0 && at < g.in.w)
            copy_run(row + at * g.in_channels, to + kw * channels, channels);
          else
            clear_run(to + kw * channels, channels);
        }
      }
    }
  }
}

template <class S, class T>
void gather_planes(const ColumnBlock& block, const S* image, T* columns) {
  const Conv2dGeometry& g = block.geometry;
  T* to = columns;
  for (std::int64_t c = 0; c < block.channels; ++c, image += g.in.h * g.in.w) {
    for (std::int64_t kh = 0; kh < g.kernel.h; ++kh) {
      for (std::int64_t kw = 0; kw < g.kernel.w; ++kw) {
        const std::int64_t shift = kw * g.dilation.w - g.padding.w;
        const Span span = inside(g.out.w, g.in.w, g.stride.w, shift);
        for (std::int64_t oh = block.first; oh < block.last; ++oh, to += g.out.w) {
          const std::int64_t ih = oh * g.stride.h - g.padding.h + kh * g.dilation.h;
          if (ih < 0 || ih >= g.in.h) {
            clear_run(to, g.out.w);
            continue;
          }
          const S* const row = image + ih * g.in.w;
          clear_run(to, span.begin);
          if (g.stride.w == 1) {
            copy_run(row + span.begin + shift, to + span.begin, span.end - span.begin);
          } else {
            for (std::int64_t ow = span.begin; ow < span.end; ++ow)
              to[ow] = static_cast<T>(row[ow * g.stride.w + shift]);
          }
          clear_run(to + span.end, g.out.w - span.end);
        }
      }
    }
  }
}

template <class T>
void scatter_channels_last(const ColumnBlock& block, const T* columns, T* image, std::int64_t pixel_step) {
  const Conv2dGeometry& g = block.geometry;
  const std::int64_t channels = block.channels;
  for (std::int64_t oh = block.first; oh < block.last; ++oh) {
    for (std::int64_t ow = 0; ow < g.out.w; ++ow) {
      for (std::int64_t kh = 0; kh < g.kernel.h; ++kh) {
        const std::int64_t ih = oh * g.stride.h - g.padding.h + kh * g.dilation.h;
        for (std::int64_t kw = 0; kw < g.kernel.w; ++kw, columns += channels) {
          const std::int64_t iw = ow * g.stride.w - g.padding.w + kw * g.dilation.w;
          if (ih < 0 || ih >= g.in.h || iw < 0 || iw >= g.in.w) continue;
          T* const to = image + (ih * g.in.w + iw) * pixel_step;
          for (std::int64_t c = 0; c < channels; ++c) to[c] += columns[c];
        }
      }
    }
  }
}

template <class T>
void scatter_planes(const ColumnBlock& block, const T* columns, T* image) {
  const Conv2dGeometry& g = block.geometry;
  for (std::int64_t c = 0; c < block.channels; ++c, image += g.in.h * g.in.w) {
    for (std::int64_t kh = 0; kh < g.kernel.h; ++kh) {
      for (std::int64_t kw = 0; kw < g.kernel.w; ++kw) {
        const std::int64_t shift = kw * g.dilation.w - g.padding.w;
        const Span span = inside(g.out.w, g.in.w, g.stride.w, shift);
        for (std::int64_t oh = block.first; oh < block.last; ++oh, columns += g.out.w) {
          const std::int64_t ih = oh * g.stride.h - g.padding.h + kh * g.dilation.h;
          if (ih < 0 || ih >= g.in.h) continue;
          T* const row = image + ih * g.in.w + shift;
          for (std::int64_t ow = span.begin; ow < span.end; ++ow) row[ow * g.stride.w] += columns[ow];
        }
      }
    }
  }
}

}  // namespace

template <class S, class T>
void gather_columns(const ColumnBlock& block, const S* image, T* columns) {
  if (block.channels_last)
    gather_channels_last(block, image, columns);
  else
    gather_planes(block, image, columns);
}

template <class T>
void scatter_columns(const ColumnBlock& block, const T* columns, T* image, std::int64_t pixel_step) {
  if (block.channels_last)
    scatter_channels_last(block, columns, image, pixel_step);
  else
    scatter_planes(block, columns, image);
}

template void gather_columns(const ColumnBlock&, const float*, float*);
template void gather_columns(const ColumnBlock&, const double*, double*);
template void gather_columns(const ColumnBlock&, const BFloat16*, float*);
template void gather_columns(const ColumnBlock&, const Float16*, float*);
template void scatter_columns(const ColumnBlock&, const float*, float*, std::int64_t);
template void scatter_columns(const ColumnBlock&, const double*, double*, std::int64_t);

}  // namespace lamella::cpu
