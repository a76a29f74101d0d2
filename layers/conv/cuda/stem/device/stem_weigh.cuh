#pragma once

#include "patch.cuh"

/// The gradient of the weights of a convolution of few channels, by the matrix units:
///   dw [outputs][window] = gᵀ [outputs][pixels] · windows [pixels][window].
///
/// The floor is to read image and gradient once. Both operands want neighbouring pixels in a word. Word q of
/// the patch has numbers q and that of the next window, so that a lane's words are one load each. Gradients
/// go from memory to registers: a lane takes neighbouring channels of four pixels, and which channel is which
/// row of a product is ours to say.
namespace lamella::stem {

/// Words of kSixteens times two channels for each of four neighbouring pixels.
/// This is the place for a gradient that is made of others as it is read.
template <int kSixteens>
struct Gradients {
  unsigned word[4][kSixteens];

  __device__ __forceinline__ void load(const unsigned short* from, int step, int valid) {
#pragma unroll
    for (int p = 0; p < 4; ++p) {
#pragma unroll
      for (int m = 0; m < kSixteens; ++m) word[p][m] = 0;
      if (p >= valid) continue;
      const auto words = depthwise::load_words<4 * kSixteens>(from + p * step);
#pragma unroll
      for (int m = 0; m < kSixteens; ++m) word[p][m] = words.word[m];
    }
  }
};

__device__ __forceinline__ unsigned low_halves(unsigned a, unsigned b) { return (a & 0xffffu) | b << 16; }
__device__ __forceinline__ unsigned high_halves(unsigned a, unsigned b) {
  return a >> 16 | (b & 0xffff0000u);
}

/// kEights: of a window's numbers; kSixteens: of output channels, of a block: 1 or 2.
template <class T, int kEights, int kSixteens>
__global__ void __launch_bounds__(kThreads, kEights <= 4   ? 5
                                            : kEights <= 5 ? 4
                                                           : 2)
    weigh_windows(const __grid_constant__ WeighWork work) {
  depthwise::wait_for_stream();
  const Sizes& sizes = work.sizes;
  const Cut& cut = work.cut;
  constexpr int kMine = 2 * kSixteens, kChannels = 16 * kSixteens, kNumbers = 8 * kEights;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int down = lane / 4, across = lane % 4;
  const int part = static_cast<int>(blockIdx.x) / cut.groups,
            group = static_cast<int>(blockIdx.x) % cut.groups;
  const int first_channel = group * kChannels, my_channel = first_channel + down * kMine;
  const bool has_channels = my_channel < sizes.outputs;
  unsigned* const patch = reinterpret_cast<unsigned*>(shared_memory());
  unsigned short* const halves = reinterpret_cast<unsigned short*>(shared_memory());

  // A window's numbers are row by row of the kernel; those that do not exist are the first, and not kept.
  const int row_numbers = sizes.kernel_w * sizes.channels, next = sizes.stride_w * sizes.channels;
  int place[kEights];
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    const int number = n * 8 + down, y = number / row_numbers;
    place[n] = y < sizes.kernel_h ? y * cut.pitch + number - y * row_numbers : 0;
  }
  float sums[kSixteens][kEights][4];
#pragma unroll
  for (int m = 0; m < kSixteens; ++m)
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;

#pragma unroll 1
  for (Int64 item = first_item(cut, part), last = first_item(cut, part + 1); item < last; ++item) {
    const Tile tile(sizes, cut, item);
    const int strips = (tile.columns + kStrip - 1) / kStrip;
    const unsigned short* const gradient =
        static_cast<const unsigned short*>(work.gradient) +
        ((tile.image * sizes.out_h + tile.y) * sizes.out_w + tile.x) * sizes.outputs + my_channel;
    const auto load = [&](Gradients<kSixteens>& to, const Pieces& at) {
      const int column = at.piece * kStrip + 4 * across;
      const bool exists = at.row < tile.rows && has_channels;
      to.load(gradient + (at.row * sizes.out_w + column) * sizes.outputs, sizes.outputs,
              exists ? tile.columns - column : 0);
    };
    Pieces at(strips);
    Gradients<kSixteens> g;
    load(g, at);  // on its way while the patch is made
    __syncthreads();
    stage<T>(sizes, cut, work.image, tile, [&](int row, int number, unsigned short bits) {
      const int to = 2 * (row * cut.pitch + number);
      halves[to] = bits;
      if (number >= next) halves[to - 2 * next + 1] = bits;
    });
    __syncthreads();
#pragma unroll 1
    while (at.row < tile.rows) {
      const int column = at.piece * kStrip + 4 * across;
      const unsigned* const windows = patch + at.row * sizes.stride_h * cut.pitch + column * next;
      const bool whole = (at.piece + 1) * kStrip <= tile.columns;
      // Windows of pixels that do not exist may see numbers that are none.
      const int valid = tile.columns - column;
      const unsigned mask0 = (valid > 0 ? 0xffffu : 0u) | (valid > 1 ? 0xffff0000u : 0u),
                     mask1 = (valid > 2 ? 0xffffu : 0u) | (valid > 3 ? 0xffff0000u : 0u);
      const Gradients<kSixteens> now = g;
      at.next(strips);
      load(g, at);
      unsigned b[kEights][2];
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
        b[n][0] = windows[place[n]], b[n][1] = windows[place[n] + 2 * next];
        if (!whole) b[n][0] &= mask0, b[n][1] &= mask1;
      }
#pragma unroll
      for (int m = 0; m < kSixteens; ++m) {
        const unsigned a0 = low_halves(now.word[0][m], now.word[1][m]),
                       a1 = high_halves(now.word[0][m], now.word[1][m]),
                       a2 = low_halves(now.word[2][m], now.word[3][m]),
                       a3 = high_halves(now.word[2][m], now.word[3][m]);
#pragma unroll
        for (int n = 0; n < kEights; ++n) multiply_add(sums[m][n], a0, a1, a2, a3, b[n][0], b[n][1], T{});
      }
    }
  }

  // One warp after the other, so that the order is fixed, where the patch was.
  float* const left = reinterpret_cast<float*>(shared_memory());
#pragma unroll 1
  for (int w = 0; w < kWarps; ++w) {
    __syncthreads();
    if (warp != w) continue;
#pragma unroll
    for (int m = 0; m < kSixteens; ++m)
#pragma unroll
      for (int n = 0; n < kEights; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& to = left[(down * kMine + 2 * m + i / 2) * kNumbers + n * 8 + across * 2 + i % 2];
          to = w == 0 ? sums[m][n][i] : to + sums[m][n][i];
        }
  }
  __syncthreads();
  const int channels = min(kChannels, sizes.outputs - first_channel), numbers = sizes.numbers();
  float* const to = work.parts + (static_cast<Int64>(part) * sizes.outputs + first_channel) * numbers;
  for (int i = static_cast<int>(threadIdx.x); i < channels * numbers; i += kThreads) {
    const int channel = i / numbers, in_row = i - channel * numbers, c = in_row / sizes.taps(),
              tap = in_row - c * sizes.taps();
    to[i] = left[channel * kNumbers + tap * sizes.channels + c];
  }
}

}  // namespace lamella::stem
