#pragma once

#include "point_load.cuh"

/// The gradient of the weights of a 1x1 convolution, by the matrix units, for GPUs of compute capability 9
/// and on:
///   dw [outputs][inputs] = gᵀ [outputs][pixels] · a(x) [pixels][inputs],
/// and the bias's, the sums of g.
///
/// The floor is to read x and g once. A block has a tile of dw, all of it where that fits into registers, and
/// walks over pages of pixels, which a warp of it asks the copy engine for. The other warps share the tile
/// out among them, and the pixels of a page; what they have of the tile stays in registers to the end.
namespace lamella::pointwise {

/// A block has kOutputs x kInputs of dw; a warp kWarpOutputs (of sixteens) x kWarpInputs (of sixteens) for
/// every kDepths-th sixteen pixels of a page of kPixels. Pages have boxes of kGBox channels of g, and of
/// kXBox of x. kFoldG, kFoldX: these are folded.
template <int kOutputs_, int kInputs_, int kWarpOutputs_, int kWarpInputs_, int kDepths_, int kPixels_,
          int kGBox_, int kXBox_, int kPages_, bool kFoldG_ = false, bool kFoldX_ = false>
struct WeighTile {
  static constexpr int kOutputs = kOutputs_, kInputs = kInputs_, kWarpOutputs = kWarpOutputs_,
                       kWarpInputs = kWarpInputs_, kDepths = kDepths_, kPixels = kPixels_, kGBox = kGBox_,
                       kXBox = kXBox_, kPages = kPages_;
  static constexpr int kAcross = divide_up(kInputs, kWarpInputs), kDown = divide_up(kOutputs, kWarpOutputs);
  static constexpr int kWarps = kAcross * kDown * kDepths, kThreads = 32 * (kWarps + 1);
  static_assert(kWarpOutputs % 16 == 0 && kWarpInputs % 16 == 0 && kPixels % (16 * kDepths) == 0);
  static_assert(kPixels <= 256);
  static constexpr bool kFoldG = kFoldG_, kFoldX = kFoldX_;
  static_assert((!kFoldG || kOutputs == kGBox) && (!kFoldX || kInputs == kXBox));
};

template <class Tile>
struct WeighSizes {
  using G = Box<Tile::kGBox, Tile::kFoldG>;
  using X = Box<Tile::kXBox, Tile::kFoldX>;
  // Warps may have more than the tile: the boxes reach as far.
  static constexpr int kRows = Tile::kDown * Tile::kWarpOutputs, kColumns = Tile::kAcross * Tile::kWarpInputs;
  static constexpr int kGBoxes = divide_up(kRows, Tile::kGBox), kXBoxes = divide_up(kColumns, Tile::kXBox);
  static constexpr int kGBoxBytes = G::bytes(Tile::kPixels), kXBoxBytes = X::bytes(Tile::kPixels);
  static constexpr int kPageBytes = kGBoxes * kGBoxBytes + kXBoxes * kXBoxBytes;
  static constexpr int kCopyBytes = Tile::kPixels * (kGBoxes * G::kRowBytes + kXBoxes * X::kRowBytes);
  static constexpr int kLeftBytes = Tile::kDepths > 1 ? 4 * kRows*(kColumns + 1) : 0;
  static constexpr int kBarriers = (larger(Tile::kPages * kPageBytes, kLeftBytes) + 15) / 16 * 16;
  static constexpr int kSharedBytes = 1024 + kBarriers + RingBarriers<Tile::kPages>::kBytes;
};

template <class T, class Tile, Load kLoad, bool kBias, int kBlocksOfSm>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksOfSm)
    weigh_points(const __grid_constant__ WeighWork work) {
  using Sizes = WeighSizes<Tile>;
  using G = typename Sizes::G;
  using X = typename Sizes::X;
  constexpr int kM = Tile::kWarpOutputs / 16, kN = Tile::kWarpInputs / 8, kPages = Tile::kPages;
  const unsigned begin = shared_address(shared_memory()), base = (begin + 1023u) & ~1023u;
  unsigned char* const memory = shared_memory() + (base - begin);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto tiles = static_cast<unsigned>(work.input_tiles * work.output_tiles);
  const int tile = static_cast<int>(blockIdx.x % tiles), part = static_cast<int>(blockIdx.x / tiles);
  const int first_input = tile % work.input_tiles * Tile::kInputs,
            first_output = tile / work.input_tiles * Tile::kOutputs;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);

  const RingBarriers<kPages> barriers(base + Sizes::kBarriers);
  if (threadIdx.x == 0) barriers.make(Tile::kWarps);
  wait_for_stream();
  __syncthreads();

  RingEnd<kPages> end;
  if (warp == Tile::kWarps) {
    if (lane != 0) return;
#pragma unroll 1
    for (int item = first_item; item < last_item; ++item, end.next()) {
      unsigned to = base + end.slot * Sizes::kPageBytes;
      const unsigned barrier = barriers.full + 8 * end.slot;
      barriers.wait_empty(end);
      expect_bytes(barrier, Sizes::kCopyBytes);
#pragma unroll 1
      for (int j = 0; j < Sizes::kGBoxes; ++j, to += Sizes::kGBoxBytes)
        load_rows<G>(to, work.g, first_output + j * Tile::kGBox, item * Tile::kPixels, barrier);
#pragma unroll 1
      for (int j = 0; j < Sizes::kXBoxes; ++j, to += Sizes::kXBoxBytes)
        load_rows<X>(to, work.x, first_input + j * Tile::kXBox, item * Tile::kPixels, barrier);
    }
    return;
  }

  const int across = warp % Tile::kAcross, down = warp / Tile::kAcross % Tile::kDown,
            depth = warp / (Tile::kAcross * Tile::kDown);
  const bool sums_g = kBias && across == 0 && first_input == 0;
  // In sixteens of channels, from the tile's beginning on.
  const int my_outputs = down * kM, my_inputs = across * (kN / 2);
  const unsigned my_g = G::chunks_first(), my_x = X::rows_first();
  const auto g_place = [&](int m) {
    const int sixteen = my_outputs + m;
    return G::moved(my_g, 0, sixteen % G::kSteps) +
           static_cast<unsigned>(sixteen / G::kSteps * Sizes::kGBoxBytes);
  };
  const auto x_place = [&](int pair) {
    const int sixteen = my_inputs + pair;
    return X::moved(my_x, 0, sixteen % X::kSteps) +
           static_cast<unsigned>(sixteen / X::kSteps * Sizes::kXBoxBytes +
                                 Sizes::kGBoxes * Sizes::kGBoxBytes);
  };
  // Of a pair of eights of inputs a lane has number l / 4 of each.
  float scale[kLoad == Load::Plain ? 1 : kN], shift[kLoad == Load::Plain ? 1 : kN];
  Activate<T, kLoad> activate;
  if constexpr (kLoad != Load::Plain) {
    activate.begin(work.load);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int input = first_input + my_inputs * 16 + n * 8 + lane / 4;
      scale[n] = input < work.inputs ? work.load.scale[input] : 0.0f;
      shift[n] = input < work.inputs ? work.load.shift[input] : 0.0f;
    }
  }
  float sums[kM][kN][4], total[kBias ? kM : 1][4];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int n = 0; n < kN; ++n) sums[m][n][i] = 0;
      if (kBias) total[kBias ? m : 0][i] = 0;
    }

#pragma unroll 1
  for (int item = first_item; item < last_item; ++item, end.next()) {
    barriers.wait_full(end);
    const unsigned page = base + end.slot * Sizes::kPageBytes;
#pragma unroll(kM* kN <= 16 ? 2 : 1)
    for (int deep = 0; deep < Tile::kPixels / 16 / Tile::kDepths; ++deep) {
      const int step = depth + deep * Tile::kDepths;
      unsigned x[kN][2];
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        unsigned four[4];
        load_matrices_transposed(four, page + X::moved(x_place(n / 2), step, 0));
        x[n][0] = four[0], x[n][1] = four[1], x[n + 1][0] = four[2], x[n + 1][1] = four[3];
      }
      if constexpr (kLoad != Load::Plain) {
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int half = 0; half < 2; ++half)
            x[n][half] = activate.apply(x[n][half], scale[n], shift[n], scale[n], shift[n]);
      }
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        unsigned g[4];
        load_matrices_transposed(g, page + G::moved(g_place(m), step, 0));
#pragma unroll
        for (int n = 0; n < kN; ++n) multiply_add(sums[m][n], g[0], g[1], g[2], g[3], x[n][0], x[n][1], T{});
        if (sums_g) {
          const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
          multiply_add(total[kBias ? m : 0], g[0], g[1], g[2], g[3], ones, ones, T{});
        }
      }
    }
    barriers.release(end);
  }

  // Of sixteen outputs m and eight inputs n a lane has numbers 2 · (l % 4) and the next of rows l / 4 and l /
  // 4 + 8.
  const int row = my_outputs * 16 + lane / 4, column = my_inputs * 16 + lane % 4 * 2;
  if constexpr (Tile::kDepths > 1) {
    // All pages have been read: their place is free. One depth after the other, so that the order is fixed.
    float* const left = reinterpret_cast<float*>(memory);
    float* const left_bias = left + Sizes::kRows * Sizes::kColumns;
#pragma unroll 1
    for (int d = 1; d < Tile::kDepths; ++d) {
      synchronize_some(1, 32 * Tile::kWarps);
      if (depth == d) {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float* const to = left + (row + 16 * m + 8 * half) * Sizes::kColumns + column;
#pragma unroll
            for (int n = 0; n < kN; ++n)
              to[8 * n] = sums[m][n][2 * half], to[8 * n + 1] = sums[m][n][2 * half + 1];
            if (sums_g && lane % 4 == 0) left_bias[row + 16 * m + 8 * half] = total[kBias ? m : 0][2 * half];
          }
      }
      synchronize_some(1, 32 * Tile::kWarps);
      if (depth == 0) {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float* const from = left + (row + 16 * m + 8 * half) * Sizes::kColumns + column;
#pragma unroll
            for (int n = 0; n < kN; ++n)
              sums[m][n][2 * half] += from[8 * n], sums[m][n][2 * half + 1] += from[8 * n + 1];
            if (sums_g) total[kBias ? m : 0][2 * half] += left_bias[row + 16 * m + 8 * half];
          }
      }
    }
    if (depth != 0) return;
  }
  // A warp may have more than the tile, and the tile more than dw.
  const int rows = min(Tile::kOutputs, work.outputs - first_output),
            columns = min(Tile::kInputs, work.inputs - first_input);
  float* const to =
      work.parts + (static_cast<Int64>(part) * work.outputs + first_output) * work.inputs + first_input;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int mine = row + 16 * m + 8 * half;
      if (mine >= rows) continue;
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        if (column + 8 * n >= columns) continue;
        const unsigned pair[2]{__float_as_uint(sums[m][n][2 * half]),
                               __float_as_uint(sums[m][n][2 * half + 1])};
        store_global(to + static_cast<Int64>(mine) * work.inputs + column + 8 * n, pair);
      }
      if (sums_g && lane % 4 == 0)
        work.bias_parts[static_cast<Int64>(part) * work.outputs + first_output + mine] =
            total[kBias ? m : 0][2 * half];
    }
}

}  // namespace lamella::pointwise
