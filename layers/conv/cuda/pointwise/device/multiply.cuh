#pragma once

#include "store_hooks.cuh"

/// Pixels times weights, by the matrix units, for GPUs of compute capability 9 and on:
///   y [pixels][outputs] = a(x [pixels][inputs]) · w,
/// a 1x1 convolution forward or, with weights turned, its input's gradient.
///
/// The floor is to read x and to write y once. A block has a slice of the outputs and walks over tiles of
/// pixels. One warp of it asks the copy engine for pages ahead, each a tile's pixels with some of the inputs;
/// each of the others has kWarpPixels pixels and all outputs of the slice, so it transforms each number that
/// it reads in registers, once, and waits for no other warp. Weights stay in shared memory where they fit,
/// else their part comes with each page. Products have outputs as rows and pixels as columns: so a lane has
/// few channels and many pixels, and sums over pixels stay in registers.
namespace lamella::pointwise {

/// kInputs: of x; kOutputs: of a slice, sixteens of them but for a single slice. Pages have kBox inputs of x;
/// what is stored goes in boxes of kStoreBox outputs. kFoldIn, kFoldOut: these are folded.
template <int kInputs_, int kOutputs_, int kWarps_, int kWarpPixels_, int kBox_, int kStoreBox_, int kPages_,
          bool kResident_, bool kFoldIn_ = false, bool kFoldOut_ = false>
struct PointTile {
  static constexpr int kInputs = kInputs_, kOutputs = kOutputs_, kWarps = kWarps_, kWarpPixels = kWarpPixels_,
                       kBox = kBox_, kStoreBox = kStoreBox_, kPages = kPages_;
  static constexpr bool kResident = kResident_;  ///< weights
  static constexpr bool kFoldIn = kFoldIn_, kFoldOut = kFoldOut_;
  static_assert((!kFoldIn || kInputs == kBox) && (!kFoldOut || kOutputs == kStoreBox));
  static constexpr int kPixels = kWarps * kWarpPixels, kThreads = 32 * (kWarps + 1);
  static_assert(kWarpPixels % 16 == 0 && kPixels <= 256 && kOutputs <= 256);
};

/// Where things lie in shared memory, from the first 1024 bytes boundary on.
template <class Tile, bool kTurned, Load kLoad, Hook kHook>
struct PointSizes {
  using In = Box<Tile::kBox, Tile::kFoldIn>;
  using Out = Box<Tile::kStoreBox, Tile::kFoldOut>;
  using Weights = Box<kTurned ? Tile::kStoreBox : Tile::kBox>;
  static constexpr int kSteps = divide_up(Tile::kInputs, 16), kChunks = divide_up(Tile::kInputs, Tile::kBox);
  static constexpr int kM = divide_up(Tile::kOutputs, 16), kN = Tile::kWarpPixels / 8;
  static constexpr int kOutBoxes = divide_up(Tile::kOutputs, Tile::kStoreBox);
  /// Of a chunk of inputs.
  static constexpr int kWeightBytes =
      Weights::bytes(kTurned ? Tile::kBox : 16 * kM) * (kTurned ? kOutBoxes : 1);
  static constexpr int kXBytes = In::bytes(Tile::kPixels);
  static constexpr int kInPageBytes = kXBytes + (Tile::kResident ? 0 : kWeightBytes);
  static constexpr int kZBytes = leaves_sums(kHook) ? Out::bytes(Tile::kPixels) : 0;
  static constexpr int kPageBytes = larger(kInPageBytes, kZBytes);
  static constexpr int kResultBox = Out::bytes(Tile::kWarpPixels), kResultBytes = kOutBoxes * kResultBox;

  static constexpr int kWeights = Tile::kPages * kPageBytes;
  static constexpr int kResults = kWeights + (Tile::kResident ? kChunks * kWeightBytes : 0);
  static constexpr int kBarriers = kResults + Tile::kWarps * kResultBytes;
  static constexpr int kLoadFactors = kBarriers + (RingBarriers<Tile::kPages>::kBytes + 8 + 15) / 16 * 16;
  static constexpr int kLoadFactorBytes = kLoad == Load::Plain ? 0 : kSteps * 128;
  static constexpr int kHookFactors = kLoadFactors + kLoadFactorBytes;
  static constexpr int kBias = kHookFactors + Kept<kHook, kM>::kFactorBytes;
  static constexpr int kKept = kBias + 64 * kM;
  static constexpr int kCounts = kKept + Tile::kWarps * Kept<kHook, kM>::kWarpBytes;
  static constexpr int kSharedBytes = 1024 + kCounts + 4 * Tile::kWarps;
};

template <class T, class Tile, bool kTurned, Load kLoad, Hook kHook, int kBlocksOfSm>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksOfSm)
    multiply_points(const __grid_constant__ PointWork work) {
  using Sizes = PointSizes<Tile, kTurned, kLoad, kHook>;
  using In = typename Sizes::In;
  using Out = typename Sizes::Out;
  using Weights = typename Sizes::Weights;
  constexpr int kM = Sizes::kM, kN = Sizes::kN, kPages = Tile::kPages, kChunks = Sizes::kChunks;
  const unsigned begin = shared_address(shared_memory()), base = (begin + 1023u) & ~1023u;
  unsigned char* const memory = shared_memory() + (base - begin);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int slice = static_cast<int>(blockIdx.x % static_cast<unsigned>(work.slices)),
            part = static_cast<int>(blockIdx.x / static_cast<unsigned>(work.slices));
  const int first_output = slice * Tile::kOutputs;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);

  const RingBarriers<kPages> barriers(base + Sizes::kBarriers);
  const unsigned weights_came = base + Sizes::kBarriers + RingBarriers<kPages>::kBytes;
  if (threadIdx.x == 0) {
    barriers.make(Tile::kWarps);
    make_barrier(weights_came, 1);
  }
  wait_for_stream();
  __syncthreads();

  RingEnd<kPages> end;
  if (warp == Tile::kWarps) {
    if (lane != 0) return;
    const auto load_weights = [&](unsigned to, int chunk, unsigned barrier) {
      if constexpr (kTurned) {
#pragma unroll
        for (int j = 0; j < Sizes::kOutBoxes; ++j)
          load_rows<Weights>(to + j * Weights::bytes(Tile::kBox), work.weights,
                             first_output + j * Tile::kStoreBox, chunk * Tile::kBox, barrier);
      } else {
        load_rows<Weights>(to, work.weights, chunk * Tile::kBox, first_output, barrier);
      }
    };
    constexpr int kWeightCopy = (kTurned ? Sizes::kOutBoxes * Tile::kBox : 16 * kM) * Weights::kRowBytes;
    if (Tile::kResident) {
      expect_bytes(weights_came, kChunks * kWeightCopy);
      for (int chunk = 0; chunk < kChunks; ++chunk)
        load_weights(base + Sizes::kWeights + chunk * Sizes::kWeightBytes, chunk, weights_came);
    }
#pragma unroll 1
    for (int item = first_item; item < last_item; ++item) {
      const int pixel = item * Tile::kPixels;
#pragma unroll 1
      for (int chunk = 0; chunk < kChunks; ++chunk, end.next()) {
        const unsigned to = base + end.slot * Sizes::kPageBytes, barrier = barriers.full + 8 * end.slot;
        barriers.wait_empty(end);
        expect_bytes(barrier, Tile::kPixels * In::kRowBytes + (Tile::kResident ? 0 : kWeightCopy));
        load_rows<In>(to, work.x, chunk * Tile::kBox, pixel, barrier);
        if (!Tile::kResident) load_weights(to + Sizes::kXBytes, chunk, barrier);
      }
      if constexpr (leaves_sums(kHook)) {
#pragma unroll 1
        for (int j = 0; j < Sizes::kOutBoxes; ++j, end.next()) {
          const unsigned barrier = barriers.full + 8 * end.slot;
          barriers.wait_empty(end);
          expect_bytes(barrier, Tile::kPixels * Out::kRowBytes);
          load_rows<Out>(base + end.slot * Sizes::kPageBytes, work.z, first_output + j * Tile::kStoreBox,
                         pixel, barrier);
        }
      }
    }
    return;
  }

  constexpr int kReaders = 32 * Tile::kWarps;
  DepthFactors<T, kLoad, Sizes::kSteps> factors;
  factors.begin(memory + Sizes::kLoadFactors, work.load, Tile::kInputs, kReaders);
  Kept<kHook, kM> kept;
  if constexpr (leaves_sums(kHook))
    kept.load_factors(memory + Sizes::kHookFactors, work, first_output, kReaders, T{});
  float* const bias = reinterpret_cast<float*>(memory + Sizes::kBias);
  for (int i = static_cast<int>(threadIdx.x); i < 16 * kM; i += kReaders)
    bias[i] = work.bias != nullptr && first_output + i < work.outputs
                  ? load_parameter<T>(work.bias, work.bias_is_float32, first_output + i)
                  : 0.0f;
  synchronize_some(1, kReaders);

  const int my_sixteens = warp * (Tile::kWarpPixels / 16);
  const unsigned my_x = In::moved(In::chunks_first(), my_sixteens, 0);
  const unsigned my_weights = kTurned ? Weights::chunks_first() : Weights::rows_first();
  const unsigned results = base + Sizes::kResults + warp * Sizes::kResultBytes;
  const unsigned my_result = Out::chunks_first();
  const float* const my_bias = bias + lane / 4;
  if constexpr (kHook != Hook::None) kept.begin(memory + Sizes::kKept + warp * Kept<kHook, kM>::kWarpBytes);
  if (Tile::kResident) wait_for_phase(weights_came, 0);

#pragma unroll 1
  for (int item = first_item; item < last_item; ++item) {
    Results<kM, kN> sums;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float of = my_bias[16 * m + 8 * half];
#pragma unroll
        for (int n = 0; n < kN; ++n) sums[m][n][2 * half] = sums[m][n][2 * half + 1] = of;
      }
#pragma unroll(kChunks <= 2 ? kChunks : 1)
    for (int chunk = 0; chunk < kChunks; ++chunk, end.next()) {
      barriers.wait_full(end);
      const unsigned page = base + end.slot * Sizes::kPageBytes;
      const unsigned weights =
          (Tile::kResident ? base + Sizes::kWeights + chunk * Sizes::kWeightBytes : page + Sizes::kXBytes) +
          my_weights;
#pragma unroll
      for (int s = 0; s < In::kSteps; ++s) {
        if (Sizes::kSteps % In::kSteps != 0 && chunk * In::kSteps + s >= Sizes::kSteps) break;
        unsigned x[kN][2];
#pragma unroll
        for (int n = 0; n < kN; n += 2) {
          unsigned four[4];
          load_matrices(four, page + In::moved(my_x, n / 2, s));
          x[n][0] = four[0], x[n][1] = four[1], x[n + 1][0] = four[2], x[n + 1][1] = four[3];
        }
        factors.template apply<kN>(x, chunk * In::kSteps + s);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          constexpr int kOfBox = Out::kSteps;
          unsigned w[4];
          if constexpr (kTurned)
            load_matrices_transposed(
                w, Weights::moved(weights, s, m % kOfBox) + m / kOfBox * Weights::bytes(Tile::kBox));
          else
            load_matrices(w, Weights::moved(weights, m, s));
#pragma unroll
          for (int n = 0; n < kN; ++n)
            multiply_add(sums[m][n], w[0], w[1], w[2], w[3], x[n][0], x[n][1], T{});
        }
      }
      barriers.release(end);
    }

    const int pixel = item * Tile::kPixels + warp * Tile::kWarpPixels;
    Pairs<kM, kN> pairs;
    if constexpr (leaves_sums(kHook)) {
#pragma unroll
      for (int j = 0; j < Sizes::kOutBoxes; ++j, end.next()) {
        barriers.wait_full(end);
        const unsigned z = base + end.slot * Sizes::kPageBytes + Out::moved(my_result, my_sixteens, 0);
#pragma unroll
        for (int m = j * Out::kSteps; m < min(kM, (j + 1) * Out::kSteps); ++m) {
          EightSums tile[2];
          tile[0].begin(), tile[1].begin();
#pragma unroll
          for (int n = 0; n < kN; n += 2) {
            unsigned four[4];
            load_matrices_transposed(four, Out::moved(z, n / 2, m % Out::kSteps));
            kept.apply(sums[m][n], sums[m][n + 1], pairs[m][n], pairs[m][n + 1], m, four, tile, T{});
          }
          kept.keep(tile, m);
        }
        barriers.release(end);
      }
    } else {
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n) narrow_results<T>(sums[m][n], pairs[m][n]);
    }
    if (lane == 0) wait_until_stores_have_read();
    synchronize_warp();
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; n += 2)
        store_matrices_transposed(
            Out::moved(results + my_result, n / 2, m % Out::kSteps) + m / Out::kSteps * Sizes::kResultBox,
            pairs[m][n][0], pairs[m][n][1], pairs[m][n + 1][0], pairs[m][n + 1][1]);
    hand_to_copy_engine();
    synchronize_warp();
    if (lane == 0 && pixel < work.pixels) {
#pragma unroll
      for (int j = 0; j < Sizes::kOutBoxes; ++j)
        if (first_output + j * Tile::kStoreBox < work.outputs)
          store_box(work.y, results + j * Sizes::kResultBox, first_output + j * Tile::kStoreBox,
                    pixel / Out::kFold, 0, 0);
      end_stores();
    }
    if constexpr (kHook == Hook::Moments) kept.add(pairs, min(Tile::kWarpPixels, work.pixels - pixel), T{});
  }
  if (lane == 0) wait_until_stores_have_read();

  if constexpr (kHook != Hook::None) {
    const float* const left = reinterpret_cast<const float*>(memory + Sizes::kKept);
    int* const counts = reinterpret_cast<int*>(memory + Sizes::kCounts);
    if constexpr (kHook == Hook::Moments)
      if (lane == 0) counts[warp] = kept.count;
    synchronize_some(1, kReaders);
    write_part<kHook, kM, Tile::kWarps>(
        left, counts, work.parts + static_cast<Int64>(part) * 2 * work.outputs, first_output,
        min(work.outputs, first_output + Tile::kOutputs), work.outputs, kReaders);
  }
}

}  // namespace lamella::pointwise
