#pragma once

#include "positions.cuh"

/// The forward of small planes, and the input's gradient: see positions.cuh.
namespace lamella::depthwise {

/// The work of a block.
template <class T, class K, class Map, class Tile, int kThreads, bool kTransposed>
__device__ __forceinline__ void correlate_positions(const PlaneWork& work, int number_of_block) {
  using Plan = PositionPlan<K, Map, Tile, kTransposed, 8, 2>;
  constexpr int kPlanes = Tile::kPlanes, kUnits = Tile::kUnits, kPages = Tile::kPages;
  constexpr int kImages = Tile::kImages, kConsumers = Plan::kWarps, kWorkers = 32 * kConsumers;
  constexpr int kSources = kTransposed ? Map::kOut : Map::kIn, kResults = kTransposed ? Map::kIn : Map::kOut;
  constexpr int kPageBytes = kImages * Plan::kSourcePitch, kResultBytes = kImages * Plan::kResultPitch;
  static_assert(sizeof(T) == 2 && K::kRepeat == 1 && kThreads == kWorkers + 32);
  static_assert(kImages <= 32 * kConsumers);  // a lane stores one
  static_assert(!Tile::kPeriodic);
  constexpr bool kAtOnce = PositionLayout::moves_at_once(false, Plan::kSourcePitch / 16);
  using Rows = ImageRows<T, kAtOnce, kImages, Plan::kSourcePitch, kSources>;
  extern __shared__ uint4 shared[];
  char* const bytes = reinterpret_cast<char*>(shared);
  const unsigned pages = shared_address(bytes), results = pages + kPages * kPageBytes;
  const unsigned full = results + 2 * kResultBytes, empty = full + 8 * kPages;
  using Code = PositionCode<K, Map>;
  float* const biases =
      reinterpret_cast<float*>(bytes + kPages * kPageBytes + 2 * kResultBytes + 16 * kPages);
  unsigned short* const taps = reinterpret_cast<unsigned short*>(biases + kPlanes);  // by place
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < kPages; ++s)
      make_barrier(full + 8 * s, Rows::kArrivals), make_barrier(empty + 8 * s, kConsumers);
  }
  const PositionShare<Tile> share(work, number_of_block);
  const int source_phase = share.first_channel * kSources % 8,
            result_phase = share.first_channel * kResults % 8;
  if constexpr (!kAtOnce) {
    // What is not loaded meets taps of zero: it must be a number.
    constexpr int kRowWords = Plan::kSourcePitch / 4;
    const int loaded = (source_phase + share.planes * kSources + 7) / 8 * 4;
    for (int row = warp; row < kPages * kImages; row += kThreads / 32)
#pragma unroll 1
      for (int i = loaded + lane; i < kRowWords; i += 32)
        reinterpret_cast<unsigned*>(shared)[row * kRowWords + i] = 0;
  }
  // Where results come later: codes of all sources, and behind them the taps as they are.
  constexpr int kCodeBytes = 4 * Plan::kSourcePitch / 2, kTapNumbers = kPlanes * K::kTaps;
  constexpr bool kCopies = kCodeBytes + 2 * kTapNumbers <= 2 * kResultBytes;
  static_assert(kCodeBytes <= 2 * kResultBytes);
  int* const codes = reinterpret_cast<int*>(bytes + kPages * kPageBytes);
  T* const copied = reinterpret_cast<T*>(bytes + kPages * kPageBytes + kCodeBytes);
#pragma unroll 1
  for (int i = thread; i < Plan::kSourcePitch / 2; i += kThreads)
    codes[i] = kTransposed ? Code::output(i - source_phase, share.planes)
                           : Code::input(i - source_phase, share.planes);
  wait_for_stream();
  synchronize_block(kThreads);
  PageCursor<kPages> cursor;

  if (warp == kConsumers) {
    const void* const sources = kTransposed ? work.y : work.x;
#pragma unroll 1
    for (int i = share.first_item; i < share.last_item; ++i) {
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      Rows::load(kTransposed ? work.y_images : work.x_images, sources, work, share.first_channel,
                 share.planes, i * kImages, pages + cursor.slot * kPageBytes, full + 8 * cursor.slot);
      cursor.next();
    }
    return;
  }
  // The first pages are on their way.
  for (int i = thread; i < share.planes; i += kWorkers)
    biases[i] = load_bias<T>(work.taps, share.first_channel + i);
  const Int64 first_tap = static_cast<Int64>(share.first_channel) * K::kTaps;
  if constexpr (kCopies) {
    copy_taps<T, kTapNumbers, kWorkers>(work.taps, first_tap, share.planes * K::kTaps, thread, copied);
    synchronize_some(1, kWorkers);
  }
  // Of each plane by place, and zero behind the last, where places are that are none.
  constexpr int kZero = Code::kPlaces;
#pragma unroll 1
  for (int i = thread; i < share.planes * (kZero + 1); i += kWorkers) {
    const int plane = i / (kZero + 1), place = i % (kZero + 1);
    const int tap = place < kZero ? Code::tap(place) : -1;
    const int at = plane * K::kTaps + (work.taps.turned ? K::kTaps - 1 - tap : tap);
    T number = narrow<T>(0.0f);
    if (tap >= 0) {
      if constexpr (kCopies)
        number = copied[at];
      else
        number = narrow<T>(load_parameter<T>(work.taps.taps, work.taps.taps_are_float32, first_tap + at));
    }
    taps[i] = number.bits;
  }
  synchronize_some(1, kWorkers);

  // The second factor: rows of it are the lane's source positions, its column a result.
  const int base = Plan::base(warp);
  unsigned factor[Plan::kProducts][2];
  float bias[kUnits][2];
  int column[kUnits];
  const unsigned short* plane_taps[kUnits];  // of the result's plane
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int first = (warp * kUnits + j) * 8 - result_phase, number = first + lane / 4;
    column[j] = kTransposed ? Code::input(number, share.planes) : Code::output(number, share.planes);
    plane_taps[j] = taps + min(max(number, 0) / kResults, share.planes - 1) * (kZero + 1);
#pragma unroll
    for (int n = 0; n < 2; ++n)
      bias[j][n] = biases[min(max(first + lane % 4 * 2 + n, 0) / kResults, share.planes - 1)];
  }
#pragma unroll
  for (int s = 0; s < Plan::kSteps; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint2 row = *reinterpret_cast<const uint2*>(codes + (base + 2 * s + half) * 8 + lane % 4 * 2);
#pragma unroll
      for (int j = 0; j < kUnits; ++j) {
        if (s < Plan::begin(j) || s >= Plan::end(j)) continue;
        const auto tap = [&](unsigned code) {
          const unsigned result = static_cast<unsigned>(column[j]);
          const unsigned place = kTransposed ? result - code : code - result;
          return static_cast<unsigned>(plane_taps[j][min(place, static_cast<unsigned>(kZero))]);
        };
        factor[Plan::start(j) + s - Plan::begin(j)][half] = tap(row.x) | tap(row.y) << 16;
      }
    }

  synchronize_some(1, kWorkers);  // codes have been read

  T* const results_of = static_cast<T*>(kTransposed ? work.dx : work.y);
  const int out_numbers = share.planes * kResults;
  const bool is_whole = (result_phase | out_numbers % 8) == 0;
  const int from_lane = lane % 16 * Plan::kSourcePitch + lane / 16 * 16 + base * 16;
  const int to_lane = lane % 16 * Plan::kResultPitch + lane / 16 * 16 + warp * kUnits * 16;
  int result = 0;
#pragma unroll 1
  for (int i = share.first_item; i < share.last_item; ++i) {
    const unsigned to = results + static_cast<unsigned>(result * kResultBytes);
    wait_for_phase(full + 8 * cursor.slot, cursor.parity);
#pragma unroll 1
    for (int step = 0; step < Tile::kImageSteps; ++step) {
      const unsigned from = pages + static_cast<unsigned>(cursor.slot * kPageBytes +
                                                          step * 16 * Plan::kSourcePitch + from_lane);
      float sums[kUnits][4];
#pragma unroll
      for (int j = 0; j < kUnits; ++j)
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[j][k] = bias[j][k % 2];
#pragma unroll
      for (int s = 0; s < Plan::kSteps; ++s) {
        unsigned x[4];
        load_matrices(x, from + 32 * s);
#pragma unroll
        for (int j = 0; j < kUnits; ++j) {
          if (s < Plan::begin(j) || s >= Plan::end(j)) continue;
          const unsigned(&b)[2] = factor[Plan::start(j) + s - Plan::begin(j)];
          multiply_add(sums[j], x[0], x[1], x[2], x[3], b[0], b[1], T{});
        }
      }
      const unsigned at = to + static_cast<unsigned>(step * 16 * Plan::kResultPitch + to_lane);
#pragma unroll
      for (int j = 0; j < kUnits; j += 2) {
        const auto pair = [&](int unit, int n) {
          return narrow_pair(sums[unit % kUnits][2 * n], sums[unit % kUnits][2 * n + 1], T{});
        };
        if (j + 1 < kUnits)
          store_matrices(at + 16 * j, pair(j, 0), pair(j, 1), pair(j + 1, 0), pair(j + 1, 1));
        else
          store_matrices(at + 16 * j, pair(j, 0), pair(j, 1));
      }
    }
    hand_to_copy_engine();
    wait_until_stores_have_read();  // the other place for results is free
    synchronize_warp();
    if (lane == 0) arrive(empty + 8 * cursor.slot);
    cursor.next();
    synchronize_some(1, kWorkers);
    const auto output_of = [&](int image) {
      return results_of + (static_cast<Int64>(image) * work.channels + share.first_channel) * kResults;
    };
    // By all warps: those of one would wait for each other.
    const int row = lane * kConsumers + warp;
    if (row < kImages && i * kImages + row < work.cut.images) {
      T* const out = output_of(i * kImages + row);
      const RunBytes<T> of(out, out_numbers);
      if (of.whole > of.begin) {
        store_bytes(out - of.phase + of.begin,
                    to + static_cast<unsigned>(row * Plan::kResultPitch + of.begin * 2),
                    static_cast<unsigned>((of.whole - of.begin) * 2));
        end_stores();
      }
    }
    // Some lanes were away.
    synchronize_warp();

    // What does not fill sixteen bytes, at the beginning and at the end.
#pragma unroll 1
    for (int run = thread / 8; !is_whole && run < kImages; run += kWorkers / 8) {
      if (i * kImages + run >= work.cut.images) continue;
      T* const out = output_of(i * kImages + run);
      const T* const from = reinterpret_cast<const T*>(bytes + kPages * kPageBytes + result * kResultBytes +
                                                       run * Plan::kResultPitch);
      const RunBytes<T> of(out, out_numbers);
      const int head = of.phase + thread % 8, tail = max(of.whole, of.begin) + thread % 8;
      if (head < min(of.begin, of.end)) out[thread % 8] = from[head];
      if (tail < of.end) out[tail - of.phase] = from[tail];
    }
    result ^= 1;
  }
  wait_until_stores_have_read();
}

/// All tensors begin with sixteen bytes, and so do all images.
template <class T, class K, class Map, class Tile, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks)
    forward_positions(const __grid_constant__ PlaneWork work) {
  correlate_positions<T, K, Map, Tile, kThreads, false>(work, static_cast<int>(blockIdx.x));
}
/// dx, where it is no correlation with the turned kernel.
template <class T, class K, class Map, class Tile, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks)
    backward_positions(const __grid_constant__ PlaneWork work) {
  correlate_positions<T, K, Map, Tile, kThreads, true>(work, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
