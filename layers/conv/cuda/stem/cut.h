#pragma once

#include <algorithm>

#include "layers/conv/cuda/stem/device/stem_work.cuh"
#include "layers/conv/few_channels.h"

/// How the kernels of convolutions of few channels share out their work: by the sizes alone.
namespace lamella::stem {

constexpr int ceiling(int a, int b) { return (a + b - 1) / b; }

/// Products of depth sixteen for a window, and eights of its numbers, that there are kernels for.
inline constexpr int kSteps[] = {2, 3, 7}, kWindowEights[] = {4, 5, 13};

/// Numbers of a patch's pixel for multiply_windows(): windows must begin at words.
constexpr int patch_pixel(const Sizes& s) {
  return s.channels % 2 == 0 || s.stride_w % 2 == 0 ? s.channels : s.channels + 1;
}
/// How many sixteens of numbers a filled-up window has.
constexpr int window_steps(const Sizes& s) {
  return ceiling(s.kernel_h * ceiling(s.kernel_w * patch_pixel(s), 2), 8);
}
/// The first of `sizes` that suffices; 0: none.
constexpr int enough(const int (&sizes)[3], int wanted) {
  for (const int size : sizes)
    if (size >= wanted) return size;
  return 0;
}

/// As many as an H100 has room for at once: weights are loaded and sums left once for each part.
inline constexpr int kMostParts = 5 * 132;

/// Whether the kernels can do this convolution. Few outputs: each 32 read the image anew.
inline bool fits(const Sizes& s) {
  constexpr int kMostOutputs = 64, kMostStride = 4, kMostSide = 1 << 15;
  constexpr Int64 kMostNumbers = 1 << 30;
  return s.batch > 0 && s.channels >= 1 && s.channels <= detail::kFewChannels && s.outputs >= 8 &&
         s.outputs % 8 == 0 && s.outputs <= kMostOutputs && s.stride_h <= kMostStride &&
         s.stride_w <= kMostStride && s.out_h >= 1 && s.out_w >= 1 && s.in_h < kMostSide &&
         s.in_w < kMostSide && s.out_h < kMostSide && s.out_w < kMostSide && s.pad_h < kMostSide &&
         s.pad_w < kMostSide && Int64{s.in_h} * s.in_w * s.channels < kMostNumbers &&
         Int64{s.out_h} * s.out_w * s.outputs < kMostNumbers &&
         s.batch * s.out_h * s.out_w < (Int64{1} << 40) && enough(kSteps, window_steps(s)) > 0 &&
         enough(kWindowEights, ceiling(s.numbers(), 8)) > 0;
}

/// The same for those in float32.
inline bool fits_float32(const Sizes& s) {
  return fits(s) && (s.channels == 1 || s.channels == 3) && s.kernel_h == 3 && s.kernel_w == 3 &&
         s.stride_w <= 2;
}

/// Tiles of at most `most_rows` rows whose patches, `bytes` a number, leave room for several blocks on a
/// multiprocessor; fewer rows where there would be few items. `step`: rows of words begin at its multiples.
inline Cut cut_tiles(const Sizes& s, int most_rows, int pixel, int bytes, int step = 1,
                     int most_bytes = 46 << 10) {
  constexpr int kMostColumns = 128, kFewItems = 512;
  Cut cut;
  cut.pixel = pixel;
  const auto patch_bytes = [&](int rows) {
    return ((rows - 1) * s.stride_h + s.kernel_h) * cut.pitch * bytes;
  };
  for (int most = kMostColumns; most >= kStrip; most /= 2) {
    cut.columns = ceiling(ceiling(s.out_w, ceiling(s.out_w, most)), kStrip) * kStrip;
    cut.across = ceiling(s.out_w, cut.columns);
    cut.row = ((cut.columns - 1) * s.stride_w + s.kernel_w) * pixel;
    cut.pitch = bytes == 2 ? (cut.row + 2) / 2 * 2 : ceiling(cut.row, step) * step;
    if (patch_bytes(1) <= most_bytes) break;
  }
  cut.rows = std::min(most_rows, s.out_h);
  const auto items = [&] { return s.batch * ceiling(s.out_h, cut.rows) * cut.across; };
  while (cut.rows > 1 && (patch_bytes(cut.rows) > most_bytes || items() < kFewItems))
    cut.rows = (cut.rows + 1) / 2;
  cut.down = ceiling(s.out_h, cut.rows);
  cut.items = items();
  cut.shared_bytes = patch_bytes(cut.rows);
  return cut;
}

/// Eights of output channels of a block of multiply_windows().
inline int output_eights(const Sizes& s) { return s.outputs <= 16 ? 2 : kMostEights; }

inline Cut cut_multiply(const Sizes& s) {
  constexpr int kMostRows = 4;
  Cut cut = cut_tiles(s, kMostRows, patch_pixel(s), 2);
  const int channels = 8 * output_eights(s), lanes = 8 * kWarps;
  cut.groups = ceiling(s.outputs, channels);
  cut.parts = static_cast<int>(std::min<Int64>(cut.items, kMostParts));
  cut.shared_bytes = 4 * channels + std::max(cut.shared_bytes, 4 * lanes * (3 * channels + 1));
  return cut;
}

inline Cut cut_weigh(const Sizes& s) {
  constexpr int kMostRows = 4;
  Cut cut = cut_tiles(s, kMostRows, s.channels, 4);
  const int channels = 8 * output_eights(s);
  cut.groups = ceiling(s.outputs, channels);
  cut.parts = static_cast<int>(std::min<Int64>(cut.items, kMostParts));
  cut.shared_bytes =
      std::max(cut.shared_bytes, 4 * channels * 8 * enough(kWindowEights, ceiling(s.numbers(), 8)));
  return cut;
}

/// Two patches, and beside them weights, biases, and each thread's moments and count: in all what a block may
/// have of shared memory without asking.
inline Cut cut_multiply32(const Sizes& s) {
  constexpr int kMostRows = 2;
  Cut cut = cut_tiles(s, kMostRows, s.channels, 4, 4, 16 << 10);
  const int eights = output_eights(s), channels = 8 * eights, threads = kThreads / eights;
  cut.groups = ceiling(s.outputs, channels);
  cut.parts = static_cast<int>(std::min<Int64>(cut.items, kMostParts));
  cut.patch = cut.shared_bytes / 4;
  cut.shared_bytes = 2 * cut.shared_bytes + 4 * (channels * (s.numbers() + 1) + threads * (3 * channels + 1));
  return cut;
}

inline Cut cut_weigh32(const Sizes& s) {
  constexpr int kMostRows = 4, kMultiprocessors = 132;
  Cut cut = cut_tiles(s, kMostRows, s.channels, 4, 4, 24 << 10);
  const int channels = 8 * output_eights(s);
  cut.groups = ceiling(s.outputs, channels);
  cut.parts =
      static_cast<int>(std::min<Int64>(cut.items, Int64{weigh32_blocks(s.channels)} * kMultiprocessors));
  cut.patch = cut.shared_bytes / 4;
  cut.shared_bytes = std::max(2 * cut.shared_bytes, 4 * channels * s.numbers());
  return cut;
}

}  // namespace lamella::stem
