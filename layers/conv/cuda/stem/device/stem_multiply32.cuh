#pragma once

#include "patch.cuh"
#include "stem_moments.cuh"

/// A convolution of a float32 image of few channels by 3x3 windows, in plain multiply-adds.
///
/// The floor is to read the image and to write the output. A thread has four neighbouring pixels of a row and
/// eight output channels. Of each row of the kernel it loads what the four windows see once, in sixteens of
/// bytes, where windows overlap; the weights of a number of the window are two loads for 32 multiply-adds.
/// The next patch is on its way while one is read.
namespace lamella::stem {

/// kStride: from column to column; kGroups: of eight output channels, of a block: 2 or 4.
template <int kChannels, int kStride, int kGroups>
__global__ void __launch_bounds__(kThreads, 5) multiply_windows32(const __grid_constant__ MultiplyWork work) {
  depthwise::wait_for_stream();
  const Sizes& sizes = work.sizes;
  const Cut& cut = work.cut;
  constexpr int kPixels = 4, kOutputs = 8 * kGroups, kSlots = 32 / kGroups, kLeft = 3 * kOutputs;
  constexpr int kNumbers = 9 * kChannels, kRow = ((kPixels - 1) * kStride + 3) * kChannels;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  // Of lanes 1 apart or 2 apart one pair shares pixels, the other channels: then a half warp's loads of
  // sixteen bytes are one access.
  const int group = kGroups == 2 ? lane % 2 : lane % 2 + lane / 4 % 2 * 2,
            slot = kGroups == 2 ? lane / 2 : lane / 2 % 2 + lane / 8 * 2;
  const int part = static_cast<int>(blockIdx.x) / cut.groups,
            first_channel = static_cast<int>(blockIdx.x) % cut.groups * kOutputs;
  float* const weights = reinterpret_cast<float*>(shared_memory());  // [number of the window][channel]
  float* const biases = weights + kNumbers * kOutputs;
  float* const left = biases + kOutputs;  // [warp · slots + slot][pivot, sum, square][channel]
  int* const counts = reinterpret_cast<int*>(left + kWarps * kSlots * kLeft);
  float* const patches = reinterpret_cast<float*>(counts + kWarps * kSlots);

  for (int i = static_cast<int>(threadIdx.x); i < kNumbers * kOutputs; i += kThreads) {
    const int number = i / kOutputs, channel = first_channel + i % kOutputs;
    const int c = number % kChannels, x = number / kChannels % 3, y = number / kChannels / 3;
    weights[i] = channel < sizes.outputs
                     ? static_cast<const float*>(
                           work.weight)[channel * work.weight_steps[0] + c * work.weight_steps[1] +
                                        y * work.weight_steps[2] + x * work.weight_steps[3]]
                     : 0.0f;
  }
  for (int c = static_cast<int>(threadIdx.x); c < kOutputs; c += kThreads)
    biases[c] = work.bias != nullptr && first_channel + c < sizes.outputs
                    ? static_cast<const float*>(work.bias)[first_channel + c]
                    : 0.0f;

  // A thread's channels are two fours, so that neighbours store whole sectors.
  const int quad[2] = {4 * group, 4 * (kGroups + group)};
  const bool with_moments = work.moments != nullptr;
  float* const mine = left + (warp * kSlots + slot) * kLeft;
  int count = 0;

  const Int64 last = first_item(cut, part + 1);
  Int64 item = first_item(cut, part);
  copy(sizes, cut, work.image, Tile(sizes, cut, item), patches);
  depthwise::end_copies();
#pragma unroll 1
  for (int turn = 0; item < last; ++item, turn ^= 1) {
    if (item + 1 < last)
      copy(sizes, cut, work.image, Tile(sizes, cut, item + 1), patches + (turn ^ 1) * cut.patch);
    depthwise::end_copies();
    depthwise::wait_for_copies<1>();
    __syncthreads();
    const Tile tile(sizes, cut, item);
    const float* const patch = patches + turn * cut.patch;
    float* const output = static_cast<float*>(work.output) +
                          ((tile.image * sizes.out_h + tile.y) * sizes.out_w + tile.x) * sizes.outputs +
                          first_channel;
    const int across = (tile.columns + kPixels - 1) / kPixels;
    int row = 0, piece = warp * kSlots + slot;
#pragma unroll 1
    for (;; piece += kWarps * kSlots) {
      while (piece >= across) piece -= across, ++row;
      if (row >= tile.rows) break;
      const int column = piece * kPixels, valid = min(kPixels, tile.columns - column);
      const float* const windows = patch + row * sizes.stride_h * cut.pitch + column * kStride * kChannels;
      float results[kPixels][8];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float bias[4];
        depthwise::load<float>(biases + quad[half], bias);
#pragma unroll
        for (int p = 0; p < kPixels; ++p)
#pragma unroll
          for (int i = 0; i < 4; ++i) results[p][4 * half + i] = bias[i];
      }
#pragma unroll
      for (int y = 0; y < 3; ++y) {
        float seen[(kRow + 3) / 4][4];
#pragma unroll
        for (int i = 0; i < (kRow + 3) / 4; ++i)
          depthwise::load<float>(windows + y * cut.pitch + 4 * i, seen[i]);
#pragma unroll
        for (int n = 0; n < 3 * kChannels; ++n)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float weight[4];
            depthwise::load<float>(weights + (y * 3 * kChannels + n) * kOutputs + quad[half], weight);
#pragma unroll
            for (int p = 0; p < kPixels; ++p) {
              const int at = p * kStride * kChannels + n;
#pragma unroll
              for (int i = 0; i < 4; ++i)
                results[p][4 * half + i] = fmaf(seen[at / 4][at % 4], weight[i], results[p][4 * half + i]);
            }
          }
      }
      float* const to = output + (row * sizes.out_w + column) * sizes.outputs;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (first_channel + quad[half] >= sizes.outputs) continue;
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
          if (p >= valid) continue;
          float some[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) some[i] = results[p][4 * half + i];
          depthwise::store<float>(to + p * sizes.outputs + quad[half], some);
        }
        if (!with_moments) continue;
        // Around a thread's own first results: nothing is lost where a mean is far larger than the
        // deviations.
        float pivot[4], sum[4], square[4];
        float* const moments = mine + quad[half];
        if (count > 0) {
          depthwise::load<float>(moments, pivot);
          depthwise::load<float>(moments + kOutputs, sum);
          depthwise::load<float>(moments + 2 * kOutputs, square);
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i) pivot[i] = results[0][4 * half + i], sum[i] = square[i] = 0;
          depthwise::keep<float>(moments, pivot);
        }
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
          if (p >= valid) continue;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float d = results[p][4 * half + i] - pivot[i];
            sum[i] += d;
            square[i] = fmaf(d, d, square[i]);
          }
        }
        depthwise::keep<float>(moments + kOutputs, sum);
        depthwise::keep<float>(moments + 2 * kOutputs, square);
      }
      count += valid;
    }
    __syncthreads();
  }
  if (!with_moments) return;
  if (group == 0) counts[warp * kSlots + slot] = count;  // the first channels of a group always exist
  __syncthreads();
  leave_moments<kOutputs, kWarps * kSlots>(work, left, counts, part, first_channel);
}

}  // namespace lamella::stem
