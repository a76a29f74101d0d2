#pragma once

#include "positions.cuh"

/// The weight's gradient of small planes: see positions.cuh.
namespace lamella::depthwise {

/// Shared memory, behind which barriers lie: pages, or sums in the end.
template <class Plan, class K, class Tile, bool kBias>
struct WeighMemory {
  static constexpr int kImages = Tile::kImages;
  static constexpr int kGBytes = kImages * Plan::kResultPitch,
                       kPageBytes = kGBytes + kImages * Plan::kSourcePitch;
  static constexpr int kAll = K::kTaps + 1, kShares = 8;  // of a sum
  /// Floats: of products, of the bias, of shares of sums, and where each unit's products are.
  static constexpr int kProductFloats = 128 * Plan::kWarps * Plan::kProducts,
                       kBiasFloats = kBias ? 16 * Plan::kWarps * Tile::kUnits : 0,
                       kShareFloats = Tile::kPlanes * kAll * kShares,
                       kUnitPlaces = Plan::kWarps * Tile::kUnits;
};

/// x of the lane's position in each of so many chunks, which take it rounded.
template <class T, class Map, int kTransforms, int kSteps>
struct ChunkTransform {
  PairTransform<T, kTransforms> pairs;
  float scale[kSteps], shift[kSteps];
  /// `first`: the first number of the first chunk, among those of `planes` planes from a channel's on.
  __device__ __forceinline__ void begin(const Transform& transform, int channel, int planes, int first) {
    pairs.begin(transform);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int number = first + s * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
      const int mine = channel + min(max(number, 0) / Map::kIn, planes - 1);
      scale[s] = transform.scale[mine], shift[s] = transform.shift[mine];
    }
  }
  __device__ __forceinline__ unsigned apply(unsigned word, int s) const {
    return pairs.apply(word, scale[s], scale[s], shift[s], shift[s]);
  }
};
template <class T, class Map, int kSteps>
struct ChunkTransform<T, Map, kPlain, kSteps> {
  __device__ __forceinline__ void begin(const Transform&, int, int, int) {}
  __device__ __forceinline__ unsigned apply(unsigned word, int) const { return word; }
};

/// The work of a block, which leaves a part of dw. All tensors begin with sixteen bytes, and so do all
/// images. A part has no more items than the matrix units may add up: they do not round sums to nearest.
template <class T, class K, class Map, class Tile, bool kBias, int kTransforms, int kThreads>
__device__ __forceinline__ void weigh_position_block(const PlaneWork& work, int number_of_block) {
  using Plan = PositionPlan<K, Map, Tile, false, 16, 1>;
  using Memory = WeighMemory<Plan, K, Tile, kBias>;
  constexpr int kUnits = Tile::kUnits, kPages = Tile::kPages;
  constexpr int kImages = Tile::kImages, kConsumers = Plan::kWarps, kAll = Memory::kAll;
  constexpr int kPageBytes = Memory::kPageBytes, kSteps = Plan::kSteps, kProducts = Plan::kProducts;
  constexpr bool kPeriodic = Tile::kPeriodic;
  constexpr int kXWords = Plan::kSourcePitch / 4, kGWords = Plan::kResultPitch / 4;
  constexpr bool kXAtOnce = PositionLayout::moves_at_once(kPeriodic, Plan::kSourcePitch / 16),
                 kGAtOnce = PositionLayout::moves_at_once(kPeriodic, Plan::kResultPitch / 16);
  using XRows = ImageRows<T, kXAtOnce, kImages, Plan::kSourcePitch, Map::kIn>;
  using GRows = ImageRows<T, kGAtOnce, kImages, Plan::kResultPitch, Map::kOut>;
  static_assert(sizeof(T) == 2 && K::kRepeat == 1 && kThreads == 32 * kConsumers + 32);
  static_assert(!kPeriodic || (Tile::kPlanes == 1 && Map::kIn % 8 == 0 && kTransforms == kPlain));
  extern __shared__ uint4 shared[];
  char* const bytes = reinterpret_cast<char*>(shared);
  const unsigned pages = shared_address(bytes), full = pages + kPages * kPageBytes, empty = full + 8 * kPages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < kPages; ++s)
      make_barrier(full + 8 * s, GRows::kArrivals + XRows::kArrivals),
          make_barrier(empty + 8 * s, kConsumers);
  }
  if constexpr (kPeriodic) {
    // Above and below planes of x.
    constexpr int kBegin = Plan::kLead / 4, kEnd = kBegin + Map::kIn / 2;
#pragma unroll 1
    for (int row = warp; row < kPages * kImages; row += kThreads / 32) {
      unsigned* const words =
          reinterpret_cast<unsigned*>(bytes + row / kImages * kPageBytes + Memory::kGBytes) +
          row % kImages * kXWords;
#pragma unroll 1
      for (int n = lane; n < kXWords; n += 32)
        if (n < kBegin || n >= kEnd) words[n] = 0;
    }
  }
  wait_for_stream();
  synchronize_block(kThreads);
  const PositionShare<Tile> share(work, number_of_block);
  const int x_phase = share.first_channel * Map::kIn % 8, g_phase = share.first_channel * Map::kOut % 8;
  PageCursor<kPages> cursor;
  float sums[kProducts][4], bias_sums[kBias ? kUnits : 1][4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int n = 0; n < kProducts; ++n) sums[n][k] = 0;
#pragma unroll
    for (int j = 0; j < (kBias ? kUnits : 1); ++j) bias_sums[j][k] = 0;
  }
  const int base = Plan::base(min(warp, kConsumers - 1));

  if (warp == kConsumers) {
#pragma unroll 1
    for (int i = share.first_item; i < share.last_item; ++i) {
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      const unsigned to = pages + cursor.slot * kPageBytes, barrier = full + 8 * cursor.slot;
      GRows::load(work.y_images, work.y, work, share.first_channel, share.planes, i * kImages, to, barrier);
      XRows::load(work.x_images, work.x, work, share.first_channel, share.planes, i * kImages,
                  to + Memory::kGBytes + Plan::kLead, barrier);
      cursor.next();
    }
    synchronize_warp();  // some lanes were away; the block meets below
  } else {
    ChunkTransform<T, Map, kTransforms, kSteps> transform;
    transform.begin(work.transform, share.first_channel, share.planes, base * 8 - x_phase);
    const int g_lane =
        (lane % 8 + lane / 16 * 8) * Plan::kResultPitch + lane / 8 % 2 * 16 + warp * kUnits * 32;
    const int x_lane = Memory::kGBytes + lane % 16 * Plan::kSourcePitch + lane / 16 * 16 + base * 16;
#pragma unroll 1
    for (int i = share.first_item; i < share.last_item; ++i) {
      wait_for_phase(full + 8 * cursor.slot, cursor.parity);
      const int images = work.cut.images - i * kImages;
      if (!(kXAtOnce && kGAtOnce) && images < kImages) {
        // Of images that do not exist the last item of all has zeros, too.
        unsigned* const page = reinterpret_cast<unsigned*>(bytes + cursor.slot * kPageBytes);
        for (int n = images * kGWords + thread; n < kImages * kGWords; n += 32 * kConsumers) page[n] = 0;
        for (int n = images * kXWords + thread; n < kImages * kXWords; n += 32 * kConsumers)
          page[kImages * kGWords + n] = 0;
        synchronize_some(1, 32 * kConsumers);
      }
#pragma unroll 1
      for (int turn = 0; turn < Tile::kImageSteps * Plan::kPeriods; ++turn) {
        const int step = turn / Plan::kPeriods, period = turn % Plan::kPeriods;
        const unsigned page = pages + static_cast<unsigned>(cursor.slot * kPageBytes);
        const unsigned g_from = page + static_cast<unsigned>(step * 16 * Plan::kResultPitch +
                                                             period * Plan::kResultStep + g_lane),
                       x_from = page + static_cast<unsigned>(step * 16 * Plan::kSourcePitch +
                                                             period * Plan::kSourceStep + x_lane);
        unsigned g[kUnits][4];
#pragma unroll
        for (int j = 0; j < kUnits; ++j) {
          load_matrices_transposed(g[j], g_from + 32 * j);
          if constexpr (kPeriodic) {
            const int number =
                period * (Plan::kResultStep / 2) + (warp * kUnits + j) * 16 + lane / 4 - g_phase;
#pragma unroll
            for (int k = 0; k < 4; ++k)
              if (number + k % 2 * 8 < 0 || number + k % 2 * 8 >= Map::kOut) g[j][k] = 0;
          }
          if constexpr (kBias) {
            const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
            multiply_add(bias_sums[j], g[j][0], g[j][1], g[j][2], g[j][3], ones, ones, T{});
          }
        }
#pragma unroll
        for (int s = 0; s < kSteps; s += 2) {
          unsigned x[4];
          load_matrices_transposed(x, x_from + 16 * s);  // the second chunk may be one too many
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            if (s + n >= kSteps) continue;
            const unsigned low = transform.apply(x[2 * n], s + n),
                           high = transform.apply(x[2 * n + 1], s + n);
#pragma unroll
            for (int j = 0; j < kUnits; ++j)
              if (s + n >= Plan::begin(j) && s + n < Plan::end(j))
                multiply_add(sums[Plan::start(j) + s + n - Plan::begin(j)], g[j][0], g[j][1], g[j][2],
                             g[j][3], low, high, T{});
          }
        }
      }
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
    }
  }

  // All results of products, of which each tap has its own.
  float* const products = reinterpret_cast<float*>(bytes);
  float* const biases = products + Memory::kProductFloats;
  float* const shares = biases + Memory::kBiasFloats;
  int* const places = reinterpret_cast<int*>(shares + Memory::kShareFloats);
  synchronize_block(kThreads);
  if (warp < kConsumers) {
#pragma unroll
    for (int n = 0; n < kProducts; ++n)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        products[((warp * kProducts + n) * 2 + k / 2) * 64 + lane * 2 + k % 2] = sums[n][k];
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      if (kBias && lane % 4 == 0) {
        biases[(warp * kUnits + j) * 16 + lane / 4] = bias_sums[kBias ? j : 0][0];
        biases[(warp * kUnits + j) * 16 + lane / 4 + 8] = bias_sums[kBias ? j : 0][2];
      }
      if (lane == 0)
        places[warp * kUnits + j] = (warp * kProducts + Plan::start(j) - Plan::begin(j) - base) * 128;
    }
  }
  synchronize_block(kThreads);
  for (int i = thread; i < share.planes * kAll * Memory::kShares; i += kThreads) {
    const int sum_of = i / Memory::kShares, plane = sum_of / kAll, tap = sum_of % kAll;
    const int down = tap / K::kW * Map::kSpreadH - Map::kPaddingH,
              right = tap % K::kW * Map::kSpreadW - Map::kPaddingW;
    float sum = 0;
    for (int column = i % Memory::kShares; column < Map::kOutW; column += Memory::kShares) {
      int g = plane * Map::kOut + column + g_phase;
      // Of periods: the rows of one, from the first of its results on.
      const int rows_before = kPeriodic ? g / Map::kOutW : 0;
      constexpr int kRows = kPeriodic ? Plan::kResultStep / 2 / Map::kOutW : Map::kOutH;
      g -= rows_before * Map::kOutW;
      if (tap == K::kTaps) {
        for (int row = 0; kBias && row < kRows; ++row, g += Map::kOutW) sum += biases[g];
        continue;
      }
      const int x_column = column * K::kStrideW + right;
      if (x_column < 0 || x_column >= Map::kInW) continue;
      int x_row = down - rows_before * K::kStrideH;
      int x = Plan::kLead / 2 + plane * Map::kIn + x_row * Map::kInW + x_column + x_phase;
#pragma unroll 2
      for (int row = 0; row < kRows; ++row) {
        if (kPeriodic || (x_row >= 0 && x_row < Map::kInH))
          sum += products[places[g / 16] + x / 8 * 128 + g % 16 * 8 + x % 8];
        g += Map::kOutW, x_row += K::kStrideH, x += K::kStrideH * Map::kInW;
      }
    }
    shares[i] = sum;
  }
  synchronize_block(kThreads);
  float* const to =
      work.parts + (static_cast<Int64>(share.part) * work.channels + share.first_channel) * kAll;
  for (int i = thread; i < share.planes * kAll; i += kThreads) {
    float sum = 0;
    for (int n = 0; n < Memory::kShares; ++n) sum += shares[i * Memory::kShares + n];
    to[i] = sum;
  }
}

template <class T, class K, class Map, class Tile, bool kBias, int kTransforms, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) weigh_positions(const __grid_constant__ PlaneWork work) {
  weigh_position_block<T, K, Map, Tile, kBias, kTransforms, kThreads>(work, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
