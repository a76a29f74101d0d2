#pragma once

#include "patch.cuh"

/// The gradient of the weights of a convolution of a float32 image of few channels by 3x3 windows, in plain
/// multiply-adds.
///
/// The floor is to read image and gradient once. A thread has four output channels and all numbers of the
/// window, whose sums stay in registers, for two neighbouring pixels at a time: what both windows see is
/// loaded once, and the gradient goes from memory to registers.
namespace lamella::stem {

/// kStride: from column to column; kQuads: fours of output channels, of a block: 4 or 8.
template <int kChannels, int kStride, int kQuads>
__global__ void __launch_bounds__(kThreads, weigh32_blocks(kChannels))
    weigh_windows32(const __grid_constant__ WeighWork work) {
  depthwise::wait_for_stream();
  const Sizes& sizes = work.sizes;
  const Cut& cut = work.cut;
  constexpr int kPixels = 2, kOutputs = 4 * kQuads, kSlots = 32 / kQuads, kNumbers = 9 * kChannels;
  constexpr int kRow = ((kPixels - 1) * kStride + 3) * kChannels;
  // Numbers that begin at words of so many.
  constexpr int kStep = kPixels * kStride * kChannels, kVector = kStep % 4 == 0 ? 4 : 2;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int quad = lane % kQuads, slot = lane / kQuads;
  const int part = static_cast<int>(blockIdx.x) / cut.groups,
            first_channel = static_cast<int>(blockIdx.x) % cut.groups * kOutputs;
  const bool has_channels = first_channel + 4 * quad < sizes.outputs;
  float* const patches = reinterpret_cast<float*>(shared_memory());

  float sums[kNumbers][4];
#pragma unroll
  for (int n = 0; n < kNumbers; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[n][i] = 0;

  const Int64 last = first_item(cut, part + 1);
  Int64 item = first_item(cut, part);
  copy(sizes, cut, work.image, Tile(sizes, cut, item), patches);
  depthwise::end_copies();
#pragma unroll 1
  for (int turn = 0; item < last; ++item, turn ^= 1) {
    const Tile tile(sizes, cut, item);
    const float* const gradient =
        static_cast<const float*>(work.gradient) +
        ((tile.image * sizes.out_h + tile.y) * sizes.out_w + tile.x) * sizes.outputs + first_channel +
        4 * quad;
    const int across = (tile.columns + kPixels - 1) / kPixels;
    int row = 0, piece = warp * kSlots + slot;
    float next[kPixels][4];
    const auto settle = [&] {
      while (piece >= across) piece -= across, ++row;
    };
    const auto load = [&] {
      const int column = piece * kPixels;
      const int valid = row < tile.rows && has_channels ? tile.columns - column : 0;
#pragma unroll
      for (int p = 0; p < kPixels; ++p) {
#pragma unroll
        for (int i = 0; i < 4; ++i) next[p][i] = 0;
        if (p < valid)
          depthwise::load<float>(gradient + (row * sizes.out_w + column + p) * sizes.outputs, next[p]);
      }
    };
    settle();
    load();  // on its way while the patch is waited for
    if (item + 1 < last)
      copy(sizes, cut, work.image, Tile(sizes, cut, item + 1), patches + (turn ^ 1) * cut.patch);
    depthwise::end_copies();
    depthwise::wait_for_copies<1>();
    __syncthreads();
    const float* const patch = patches + turn * cut.patch;
#pragma unroll 1
    while (row < tile.rows) {
      const int column = piece * kPixels;
      const float* const windows = patch + row * sizes.stride_h * cut.pitch + column * kStride * kChannels;
      float now[kPixels][4];
#pragma unroll
      for (int p = 0; p < kPixels; ++p)
#pragma unroll
        for (int i = 0; i < 4; ++i) now[p][i] = next[p][i];
      piece += kWarps * kSlots;
      settle();
      load();
      const auto add = [&](bool both) {
#pragma unroll
        for (int y = 0; y < 3; ++y) {
          float seen[(kRow + kVector - 1) / kVector][kVector];
#pragma unroll
          for (int i = 0; i < (kRow + kVector - 1) / kVector; ++i)
            depthwise::load<float>(windows + y * cut.pitch + kVector * i, seen[i]);
#pragma unroll
          for (int p = 0; p < kPixels; ++p) {
            if (p > 0 && !both) continue;
#pragma unroll
            for (int n = 0; n < 3 * kChannels; ++n) {
              const int at = p * kStride * kChannels + n;
#pragma unroll
              for (int i = 0; i < 4; ++i) {
                float& sum = sums[y * 3 * kChannels + n][i];
                sum = fmaf(seen[at / kVector][at % kVector], now[p][i], sum);
              }
            }
          }
        }
      };
      // The window of a pixel that does not exist may see numbers that are none.
      if (column + 1 < tile.columns)
        add(true);
      else
        add(false);
    }
    __syncthreads();
  }

  // Slots by pairs, then one warp after the other, so that the order is fixed, where the patches were.
  float* const left = patches;
#pragma unroll
  for (int n = 0; n < kNumbers; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int apart = kQuads; apart < 32; apart *= 2)
        sums[n][i] += pointwise::of_lane(sums[n][i], lane ^ apart);
#pragma unroll 1
  for (int w = 0; w < kWarps; ++w) {
    __syncthreads();
    if (warp != w) continue;
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) {
      if (n % kSlots != slot) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& to = left[(4 * quad + i) * kNumbers + n];
        to = w == 0 ? sums[n][i] : to + sums[n][i];
      }
    }
  }
  __syncthreads();
  const int channels = min(kOutputs, sizes.outputs - first_channel);
  float* const to = work.parts + (static_cast<Int64>(part) * sizes.outputs + first_channel) * kNumbers;
  for (int i = static_cast<int>(threadIdx.x); i < channels * kNumbers; i += kThreads) {
    const int channel = i / kNumbers, in_row = i - channel * kNumbers, c = in_row / 9, tap = in_row - c * 9;
    to[i] = left[channel * kNumbers + tap * kChannels + c];
  }
}

}  // namespace lamella::stem
