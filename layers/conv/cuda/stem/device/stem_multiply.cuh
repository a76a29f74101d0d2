#pragma once

#include "patch.cuh"
#include "stem_moments.cuh"

/// A convolution of an image of few channels, by the matrix units: an output pixel is the product of its
/// window with the weights.
///
/// The floor is to read the image and to write the output. A block rounds the patch that its windows see into
/// shared memory, where windows overlap. A window is as many rows of neighbouring numbers as the kernel has;
/// with each row filled up to words, and their beginnings at words, a lane has its numbers for a product in
/// whole words of the patch. What fills up is masked, so that no NaN of a pixel outside of the window comes
/// in. Weights stay in registers. Their columns are dealt out so that a lane gets results of neighbouring
/// channels.
namespace lamella::stem {

/// Of multiprocessors with 64 Ki registers.
__host__ __device__ constexpr int blocks_of_sm(int steps) { return steps <= 2 ? 5 : steps <= 3 ? 4 : 2; }

/// kSteps: products of depth sixteen; kEights: of output channels, of a block: 2 or 4.
template <class T, int kSteps, int kEights>
__global__ void __launch_bounds__(kThreads, blocks_of_sm(kSteps))
    multiply_windows(const __grid_constant__ MultiplyWork work) {
  depthwise::wait_for_stream();
  const Sizes& sizes = work.sizes;
  const Cut& cut = work.cut;
  constexpr int kMine = 2 * kEights, kChannels = 8 * kEights;  // channels of a lane, and of the block
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int down = lane / 4, across = lane % 4;
  const int part = static_cast<int>(blockIdx.x) / cut.groups,
            group = static_cast<int>(blockIdx.x) % cut.groups;
  const int first_channel = group * kChannels, my_channel = first_channel + across * kMine;
  const bool has_channels = my_channel < sizes.outputs;
  float* const biases = reinterpret_cast<float*>(shared_memory());
  unsigned short* const patch = reinterpret_cast<unsigned short*>(shared_memory() + 4 * kChannels);

  for (int c = static_cast<int>(threadIdx.x); c < kChannels; c += kThreads)
    biases[c] = work.bias != nullptr && first_channel + c < sizes.outputs
                    ? load_parameter<T>(work.bias, work.bias_is_float32, first_channel + c)
                    : 0.0f;

  // Words of a window: the rows of the kernel, each filled up.
  const int row_numbers = sizes.kernel_w * cut.pixel, row_words = (row_numbers + 1) / 2;
  int place[kSteps][2];
  unsigned mask[kSteps][2], weight[kSteps][kEights][2];
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int word = s * 8 + half * 4 + across, y = word / row_words, in_row = 2 * (word - y * row_words);
      const bool exists = y < sizes.kernel_h;
      place[s][half] = exists ? y * cut.pitch + in_row : 0;
      mask[s][half] = !exists ? 0u : in_row + 1 < row_numbers ? 0xffffffffu : 0xffffu;
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
        const int channel = first_channel + down / 2 * kMine + 2 * n + down % 2;
        float pair[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int x = (in_row + i) / cut.pixel, c = in_row + i - x * cut.pixel;
          pair[i] = 0;
          if (exists && x < sizes.kernel_w && c < sizes.channels && channel < sizes.outputs)
            pair[i] = load_parameter<T>(work.weight, work.weight_is_float32,
                                        channel * work.weight_steps[0] + c * work.weight_steps[1] +
                                            y * work.weight_steps[2] + x * work.weight_steps[3]);
        }
        weight[s][n][half] = narrow_pair(pair[0], pair[1], T{});
      }
    }

  // Around a lane's own first results: nothing is lost where a mean is far larger than the deviations.
  const bool with_moments = work.moments != nullptr;
  float pivot[kMine], sum[kMine], square[kMine];
#pragma unroll
  for (int c = 0; c < kMine; ++c) pivot[c] = sum[c] = square[c] = 0;
  int count = 0;

#pragma unroll 1
  for (Int64 item = first_item(cut, part), last = first_item(cut, part + 1); item < last; ++item) {
    const Tile tile(sizes, cut, item);
    __syncthreads();
    stage<T>(sizes, cut, work.image, tile,
             [&](int row, int number, unsigned short bits) { patch[row * cut.pitch + number] = bits; });
    __syncthreads();
    T* const output = static_cast<T*>(work.output) +
                      ((tile.image * sizes.out_h + tile.y) * sizes.out_w + tile.x) * sizes.outputs +
                      my_channel;
    const int strips = (tile.columns + kStrip - 1) / kStrip;
#pragma unroll 1
    for (Pieces at(strips); at.row < tile.rows; at.next(strips)) {
      const int column = at.piece * kStrip + down;
      const unsigned short* const windows =
          patch + at.row * sizes.stride_h * cut.pitch + column * sizes.stride_w * cut.pixel;
      const int eight = 8 * sizes.stride_w * cut.pixel;
      float results[kEights][4];
#pragma unroll
      for (int n = 0; n < kEights; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) results[n][i] = biases[across * kMine + 2 * n + i % 2];
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        unsigned a[4];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int below = 0; below < 2; ++below)
            a[2 * half + below] =
                *reinterpret_cast<const unsigned*>(windows + place[s][half] + below * eight) & mask[s][half];
#pragma unroll
        for (int n = 0; n < kEights; ++n)
          multiply_add(results[n], a[0], a[1], a[2], a[3], weight[s][n][0], weight[s][n][1], T{});
      }
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        if (column + 8 * below >= tile.columns || !has_channels) continue;
        unsigned words[kEights];
#pragma unroll
        for (int n = 0; n < kEights; ++n)
          words[n] = narrow_pair(results[n][2 * below], results[n][2 * below + 1], T{});
        store_global(output + (at.row * sizes.out_w + column + 8 * below) * sizes.outputs, words);
        if (!with_moments) continue;
        if (count == 0) {
#pragma unroll
          for (int c = 0; c < kMine; ++c) pivot[c] = results[c / 2][2 * below + c % 2];
        }
        ++count;
#pragma unroll
        for (int c = 0; c < kMine; ++c) {
          const float d = results[c / 2][2 * below + c % 2] - pivot[c];
          sum[c] += d;
          square[c] = fmaf(d, d, square[c]);
        }
      }
    }
  }
  if (!with_moments) return;

  // [warp · 8 + down][pivot, sum, square][channel], and the counts, where the patch was.
  constexpr int kLeft = 3 * kChannels;
  float* const left = biases + kChannels;
  int* const counts = reinterpret_cast<int*>(left + 8 * kWarps * kLeft);
  __syncthreads();
  float* const mine = left + (warp * 8 + down) * kLeft + across * kMine;
#pragma unroll
  for (int c = 0; c < kMine; ++c)
    mine[c] = pivot[c], mine[kChannels + c] = sum[c], mine[2 * kChannels + c] = square[c];
  if (across == 0) counts[warp * 8 + down] = count;  // the first channels of a group always exist
  __syncthreads();
  leave_moments<kChannels, 8 * kWarps>(work, left, counts, part, first_channel);
}

}  // namespace lamella::stem
