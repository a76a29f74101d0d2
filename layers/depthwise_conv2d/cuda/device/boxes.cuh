#pragma once

#include "pixels.cuh"

/// Channels side by side (NHWC), sixteen-bit numbers, by the matrix units, from boxes that the copy engine
/// moves: for GPUs of compute capability 9 and on.
///
/// For one tap and eight channels,
///   y [16 pixels][8 channels] += x [16 shifted pixels][8 channels] · diagonal matrix of the channels' taps,
/// and two taps make one product of depth 16. Of the weight gradient,
///   [8 channels of two shifts of g][16 pixels] · x [16 pixels][8 channels],
/// the diagonals of both halves are the sums for two taps. Seven eighths of the products are with zeros, or
/// not wanted; they cost little more than the useful ones would on the other units, and far fewer
/// instructions.
///
/// Numbers that are not finite spread to the other channels of their eight, as 0 · infinity is no number.
///
/// A block has some channels of a tile of columns and walks down strips of rows, one item after the other.
/// One warp of it asks for pages of rows ahead; the others compute. All places in shared memory are known
/// when the kernel is compiled.
namespace lamella::depthwise {

/// What a kernel is made of. Sixteen pixels of a product are kColumns_ (8 or 16) neighbours of one or two
/// rows; a step of a warp is kRows_ of them, one below the other. kBlocks_ of them are side by side. A block
/// has kChannels_ of x, a warp kWarpChannels_ (8 or 16). kTapRows_ < kH: that many rows of taps at a time
/// (forward), or of a warp (weight gradient). kPages_ pages are in shared memory, each the rows of a step;
/// kWhole_: with all that the step reads, one to an item.
template <int kColumns_, int kBlocks_, int kRows_, int kChannels_, int kWarpChannels_, int kTapRows_,
          int kPages_, bool kWhole_>
struct BoxTile {
  static constexpr int kColumns = kColumns_, kBlocks = kBlocks_, kRows = kRows_, kChannels = kChannels_;
  static constexpr int kWarpChannels = kWarpChannels_, kTapRows = kTapRows_, kPages = kPages_;
  static constexpr bool kWhole = kWhole_;
  static constexpr int kDown = 16 / kColumns;  ///< rows of a product
  static constexpr int kStepRows = kRows * kDown;
  static constexpr int kUnits = kBlocks * kColumns;  ///< columns of a block
  static constexpr int kEights = kWarpChannels / 8, kWarpGroups = kChannels / kWarpChannels;
  static constexpr int kPixelBytes = kChannels * 2, kChunks = kChannels / 8;
  static_assert(kColumns == 8 || kColumns == 16);
  static_assert(kChannels == 16 || kChannels == 32 || kChannels == 64);
  static_assert(kWarpChannels == 8 || kWarpChannels == 16);

  /// Chunk `chunk`, of eight channels, of pixel number `pixel` of a box. The copy engine exchanges the chunks
  /// of a pixel by its place, so that eight neighbours lie in different banks (swizzle of 128, 64 or 32
  /// bytes).
  __device__ static constexpr unsigned at(int pixel, int chunk) {
    return static_cast<unsigned>(pixel * kPixelBytes +
                                 ((chunk ^ (pixel * kPixelBytes >> 7 & (kChunks - 1))) << 4));
  }
  __host__ __device__ static constexpr int round_columns(int columns) { return (columns + 7) / 8 * 8; }
  __host__ __device__ static constexpr int box_bytes(int pixels) {
    return (pixels * kPixelBytes + 1023) / 1024 * 1024;
  }
};

template <class K, class Tile>
struct ForwardBoxes {
  static constexpr int kInRows = (Tile::kStepRows - 1) * K::kStrideH + K::kH;
  static constexpr int kPageRows = Tile::kWhole ? kInRows : Tile::kStepRows * K::kStrideH;
  static constexpr int kReach = (kInRows + kPageRows - 1) / kPageRows;  ///< pages that a step reads
  static constexpr int kXColumns = Tile::round_columns(Tile::kUnits + (K::kW - 1) / K::kStrideW);
  static constexpr int kRowBytes = kXColumns * Tile::kPixelBytes;
  static constexpr int kPlaneBytes = Tile::box_bytes(kPageRows * kXColumns);
  static constexpr int kPageBytes = K::kStrideW * kPlaneBytes;
  static constexpr int kResultBytes = Tile::box_bytes(16 * Tile::kRows);  ///< of 16 columns
  static constexpr int kBarriers = Tile::kPages * kPageBytes + 2 * Tile::kBlocks * kResultBytes;
  static constexpr int kSharedBytes = 1024 + kBarriers + 16 * Tile::kPages;
  static constexpr int kThreads = 32 * (Tile::kBlocks * Tile::kWarpGroups + 1);
  static_assert(Tile::kPages >= kReach);
};

/// One end of a ring of pages: which comes next, and the phase of its barriers.
template <int kPages>
struct PageCursor {
  int slot = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kPages) slot = 0, parity ^= 1;
  }
};

/// Sixteen pixels of eight or sixteen channels, as the lanes have their sums, to a box; `row`: the lane's
/// place as of store_matrices().
template <class T, int kEights>
__device__ __forceinline__ void store_sums(const float (&sums)[kEights][4], unsigned row) {
  const auto pair = [&](int e, int half) {
    return narrow_pair(sums[e][2 * half], sums[e][2 * half + 1], T{});
  };
  if constexpr (kEights == 1)
    store_matrices(row, pair(0, 0), pair(0, 1));
  else
    store_matrices(row, pair(0, 0), pair(0, 1), pair(1, 0), pair(1, 1));
}

/// The second factors of products for taps: a lane has a pair of numbers, most of them zero. Of eight
/// channels from `channel` on, for so many rows of taps from `first_row` on.
template <class T, class K, int kTapRows>
struct TapRows {
  unsigned tap[kTapRows * K::kW];

  __device__ void load(const Parameters& parameters, int channel, int channels, int first_row) {
    const int lane = static_cast<int>(threadIdx.x) % 32, mine = channel + lane / 4;
    const bool has = lane / 8 == lane % 4 && mine < channels;
    const Int64 at = static_cast<Int64>(mine) * K::kTaps;
#pragma unroll
    for (int k = 0; k < kTapRows * K::kW; ++k) {
      const int of = first_row * K::kW + k;
      const bool exists = has && (kTapRows == K::kH || of < K::kTaps);
      const float number = exists ? load_parameter<T>(parameters.taps, parameters.taps_are_float32,
                                                      at + (parameters.turned ? K::kTaps - 1 - of : of))
                                  : 0.0f;
      tap[k] = static_cast<unsigned>(narrow<T>(number).bits) << lane / 4 % 2 * 16;
    }
  }
};

/// Where a lane finds what it loads, from the beginning of a row of a page on: pairs of neighbouring shifts
/// of eight channels, and the last of an odd number of shifts.
template <class Tile, int kShifts>
struct ShiftPlaces {
  static constexpr int kPairs = kShifts / 2;
  static constexpr bool kOdd = kShifts % 2 == 1;
  unsigned pair[kPairs > 0 ? kPairs : 1][Tile::kEights], last;

  /// place(pixel of the product, shift, chunk). For kTransposed the two shifts lie in neighbouring matrices,
  /// else the two halves of the pixels.
  template <bool kTransposed, class Place>
  __device__ __forceinline__ void find(int chunk, const Place& place) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int pixel = kTransposed ? lane % 8 + lane / 16 * 8 : lane % 16,
              second = kTransposed ? lane / 8 % 2 : lane / 16;
#pragma unroll
    for (int e = 0; e < Tile::kEights; ++e)
#pragma unroll
      for (int p = 0; p < kPairs; ++p) pair[p][e] = place(pixel, 2 * p + second, chunk + e);
    // Not transposed: sixteen channels at once. Transposed: each eight with the same shift twice.
    last = kTransposed ? place(pixel, kShifts - 1, chunk)
                       : place(lane % 16, kShifts - 1, chunk + (Tile::kEights > 1 ? lane / 16 : 0));
  }
};

/// The axes of a box: its first row and column in the tensor, their distances, and the sizes of the tensor.
struct BoxAxes {
  int row, row_step, rows, column, column_step, columns;
};

/// Passes the numbers of a box through a transform where they lie, by all threads that compute; what is
/// outside the tensor becomes zero again. A thread has the same eight channels always.
template <class T, class Tile, bool kTransforms>
struct BoxTransform {
  __device__ __forceinline__ void begin(const Transform&, int, int) {}
  template <int kThreads, int kRows, int kColumns>
  __device__ __forceinline__ void apply(uint4*, const BoxAxes&) const {}
};
template <class T, class Tile>
struct BoxTransform<T, Tile, true> {
  Lanes<true, 8> lanes;

  __device__ __forceinline__ void begin(const Transform& transform, int first_channel, int channels) {
    const int channel = first_channel + static_cast<int>(threadIdx.x) % Tile::kChunks * 8;
    lanes.low = transform.low, lanes.high = transform.high;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      lanes.scale[i] = channel + i < channels ? transform.scale[channel + i] : 0.0f;
      lanes.shift[i] = channel + i < channels ? transform.shift[channel + i] : 0.0f;
    }
  }
  template <int kThreads, int kRows, int kColumns>
  __device__ __forceinline__ void apply(uint4* box, const BoxAxes& axes) const {
    static_assert(kThreads % Tile::kChunks == 0);
    constexpr int kPixels = kRows * kColumns, kAtOnce = kThreads / Tile::kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % Tile::kChunks;
#pragma unroll 2
    for (int pixel = static_cast<int>(threadIdx.x) / Tile::kChunks; pixel < kPixels; pixel += kAtOnce) {
      const int row = axes.row + pixel / kColumns * axes.row_step,
                column = axes.column + pixel % kColumns * axes.column_step;
      T* const at = reinterpret_cast<T*>(box + Tile::at(pixel, chunk) / 16);
      float x[1][8];
      load<T>(at, x[0]);
      lanes.apply(x, row >= 0 && row < axes.rows && column >= 0 && column < axes.columns ? 1u : 0u);
      keep<T>(at, x[0]);
    }
  }
};

/// y of a tile, all steps of all items of a block.
template <class T, class K, class Tile, bool kTransforms, int kBlocksOfSm>
__global__ void __launch_bounds__((ForwardBoxes<K, Tile>::kThreads), kBlocksOfSm)
    forward_boxes(const __grid_constant__ BoxWork boxes) {
  using Sizes = ForwardBoxes<K, Tile>;
  constexpr int kEights = Tile::kEights, kPages = Tile::kPages, kReach = Sizes::kReach,
                kTapRows = Tile::kTapRows;
  constexpr int kConsumers = Tile::kBlocks * Tile::kWarpGroups;
  constexpr bool kLong = kTapRows < K::kH;
  static_assert(K::kRepeat == 1 && !(kLong && Tile::kDown > 1));
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const int first_channel =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(cut.channel_blocks)) * Tile::kChannels;
  const int part = static_cast<int>(blockIdx.x / static_cast<unsigned>(cut.channel_blocks));
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned pages = (shared_address(shared) + 1023u) & ~1023u, full = pages + Sizes::kBarriers,
                 empty = full + 8 * kPages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  __syncthreads();
  const auto steps_of = [&](const PixelItem& at) {
    const int rows = min(cut.strip_rows, work.h.outputs(at.class_h) - at.strip * cut.strip_rows);
    if (rows <= 0 || at.tile * Tile::kUnits >= work.w.outputs(at.class_w)) return 0;
    return (rows + Tile::kStepRows - 1) / Tile::kStepRows;
  };

  PageCursor<kPages> cursor;
  if (warp == kConsumers) {
    if (lane != 0) return;
    PixelItem at(work, static_cast<unsigned>(first_item));
#pragma unroll 1
    for (int item = first_item; item < last_item; ++item, at.advance(work)) {
      const int steps = steps_of(at);
      if (steps == 0) continue;
      int row = work.h.origin(at.class_h) + at.strip * cut.strip_rows * K::kStrideH * work.h.input_step;
      const int column = work.w.origin(at.class_w) + at.tile * Tile::kUnits * K::kStrideW * work.w.input_step;
#pragma unroll 1
      for (int page = 0; page < steps + kReach - 1; ++page) {
        const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * Sizes::kPageBytes;
        wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
        expect_bytes(barrier, K::kStrideW * Sizes::kPageRows * Sizes::kRowBytes);
#pragma unroll
        for (int plane = 0; plane < K::kStrideW; ++plane)
          load_box(to + plane * Sizes::kPlaneBytes, boxes.x, first_channel,
                   column + plane * work.w.input_step, row, at.image, barrier);
        row += Sizes::kPageRows * work.h.input_step;
        cursor.next();
      }
    }
    return;
  }

  const int channel = warp % Tile::kWarpGroups * Tile::kWarpChannels, block = warp / Tile::kWarpGroups;
  const bool works = first_channel + channel < cut.channels;
  TapRows<T, K, kTapRows> taps[kEights];
  float bias[kEights][2];
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int eight = first_channel + channel + e * 8;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int out = eight + lane % 4 * 2 + i;
      bias[e][i] = out < cut.channels ? load_bias<T>(work.taps, out) : 0.0f;
    }
    if (!kLong) taps[e].load(work.taps, eight, cut.channels, 0);
  }
  using Places = ShiftPlaces<Tile, K::kW>;
  Places places;
  places.template find<false>(channel / 8, [&](int pixel, int shift, int chunk) {
    const int column = block * Tile::kColumns + pixel % Tile::kColumns + shift / K::kStrideW;
    return Tile::at(pixel / Tile::kColumns * K::kStrideH * Sizes::kXColumns + column, chunk) +
           shift % K::kStrideW * Sizes::kPlaneBytes;
  });
  const unsigned results = pages + kPages * Sizes::kPageBytes + 2 * block * Sizes::kResultBytes;
  const unsigned my_result = Tile::at(lane % 16, channel / 8 + (kEights > 1 ? lane / 16 : 0));
  const bool stores = warp % Tile::kWarpGroups == 0 && lane == 0;

  unsigned result = results;
  BoxTransform<T, Tile, kTransforms> transform;
  transform.begin(work.transform, first_channel, cut.channels);
  BoxAxes axes{0, work.h.input_step, work.h.input, 0, K::kStrideW * work.w.input_step, work.w.input};
  PageCursor<kPages> awaited;
  const auto wait_for_page = [&] {
    wait_for_phase(full + 8 * awaited.slot, awaited.parity);
    if constexpr (kTransforms) {
      uint4* const page = shared + (pages - shared_address(shared) + awaited.slot * Sizes::kPageBytes) / 16;
#pragma unroll
      for (int plane = 0; plane < K::kStrideW; ++plane) {
        BoxAxes of = axes;
        of.column += plane * work.w.input_step;
        transform.template apply<32 * kConsumers, Sizes::kPageRows, Sizes::kXColumns>(
            page + plane * Sizes::kPlaneBytes / 16, of);
      }
      axes.row += Sizes::kPageRows * work.h.input_step;
      synchronize_some(1 + Tile::kBlocks, 32 * kConsumers);
    }
    awaited.next();
  };
  PixelItem at(work, static_cast<unsigned>(first_item));
#pragma unroll 1
  for (int item = first_item; item < last_item; ++item, at.advance(work)) {
    const int steps = steps_of(at);
    if (steps == 0) continue;
    axes.row = work.h.origin(at.class_h) + at.strip * cut.strip_rows * K::kStrideH * work.h.input_step;
    axes.column = work.w.origin(at.class_w) + at.tile * Tile::kUnits * K::kStrideW * work.w.input_step;
#pragma unroll
    for (int p = 0; p < kReach - 1; ++p) wait_for_page();
    int out_row = at.class_h + at.strip * cut.strip_rows * work.h.output_step;
    const int out_column =
        at.class_w + (at.tile * Tile::kUnits + block * Tile::kColumns) * work.w.output_step;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      wait_for_page();
      if (works) {
        unsigned page[kReach];
#pragma unroll
        for (int p = 0; p < kReach; ++p) {
          const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
          page[p] = pages + slot * Sizes::kPageBytes;
        }
        float sums[Tile::kRows][kEights][4];
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
          for (int e = 0; e < kEights; ++e)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[r][e][i] = bias[e][i % 2];
        constexpr int kRowStep = Tile::kDown * K::kStrideH, kRead = (Tile::kRows - 1) * kRowStep + kTapRows;
        struct Row {
          unsigned pair[Places::kPairs > 0 ? Places::kPairs : 1][kEights][4], last[2 * kEights];
        };
        const auto load = [&](Row& x, unsigned row) {
#pragma unroll
          for (int p = 0; p < Places::kPairs; ++p)
#pragma unroll
            for (int e = 0; e < kEights; ++e) load_matrices(x.pair[p][e], row + places.pair[p][e]);
          if constexpr (Places::kOdd) load_matrices(x.last, row + places.last);
        };
        const auto multiply = [&](const Row& x, int i) {
        // Neighbouring products have sums of their own, so that none waits for another.
#pragma unroll
          for (int p = 0; p < Places::kPairs; ++p)
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r) {
              const int tap_row = i - r * kRowStep;
              if (tap_row < 0 || tap_row >= kTapRows) continue;
#pragma unroll
              for (int e = 0; e < kEights; ++e) {
                const unsigned(&four)[4] = x.pair[p][e];
                multiply_add(sums[r][e], four[0], four[1], four[2], four[3],
                             taps[e].tap[tap_row * K::kW + 2 * p], taps[e].tap[tap_row * K::kW + 2 * p + 1],
                             T{});
              }
            }
          if constexpr (Places::kOdd) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r) {
              const int tap_row = i - r * kRowStep;
              if (tap_row < 0 || tap_row >= kTapRows) continue;
#pragma unroll
              for (int e = 0; e < kEights; ++e)
                multiply_add(sums[r][e], x.last[2 * e], x.last[2 * e + 1],
                             taps[e].tap[(tap_row + 1) * K::kW - 1], T{});
            }
          }
        };
        if constexpr (kLong) {
#pragma unroll 1
          for (int kh = 0; kh < K::kH; kh += kTapRows) {
#pragma unroll
            for (int e = 0; e < kEights; ++e)
              taps[e].load(work.taps, first_channel + channel + e * 8, cut.channels, kh);
#pragma unroll
            for (int i = 0; i < kRead; ++i) {
              // Rows behind the last that is read meet taps of zero.
              const int row = min(kh + i, kReach * Sizes::kPageRows - 1 - (Tile::kDown - 1) * K::kStrideH);
              unsigned from = page[0];
#pragma unroll
              for (int p = 1; p < kReach; ++p) from = row / Sizes::kPageRows == p ? page[p] : from;
              Row x;
              load(x, from + row % Sizes::kPageRows * Sizes::kRowBytes);
              multiply(x, i);
            }
          }
        } else {
          const auto row_at = [&](int i) {
            constexpr int kPageRows = Sizes::kPageRows;
            const unsigned here = page[i / kPageRows] + i % kPageRows * Sizes::kRowBytes;
            if constexpr (Tile::kDown == 1) return here;
            // A product's second row may lie in the next page.
            const int second = i + K::kStrideH;
            if (second / kPageRows == i / kPageRows || second / kPageRows >= kReach ||
                lane % 16 < Tile::kColumns)
              return here;
            return page[second / kPageRows] -
                   static_cast<unsigned>(kPageRows - i % kPageRows) * Sizes::kRowBytes;
          };
          // The next row is on its way while one is multiplied.
          Row x[2];
          load(x[0], row_at(0));
#pragma unroll
          for (int i = 0; i < kRead; ++i) {
            if (i + 1 < kRead) load(x[(i + 1) % 2], row_at(i + 1));
            multiply(x[i % 2], i);
          }
        }
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r)
          store_sums<T>(sums[r], result + my_result + r * 16 * Tile::kPixelBytes);
      }
      hand_to_copy_engine();
      if (stores) wait_until_stores_have_read();  // the other place for results is free
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
      if constexpr (Tile::kWarpGroups > 1) synchronize_some(1 + block, 32 * Tile::kWarpGroups);
      if (stores && out_column < work.w.output) {
        store_box(boxes.y, result, first_channel, out_column, out_row, at.image, work.accumulate);
        end_stores();
      }
      result = result == results ? results + Sizes::kResultBytes : results;
      out_row += Tile::kStepRows * work.h.output_step;
    }
#pragma unroll
    for (int p = 0; p < kReach - 1; ++p) {
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
    }
  }
  if (stores) wait_until_stores_have_read();
}

/// One axis of the walk over x, in units of `stride` inputs: unit u has inputs stride · u + kPhase and on.
/// The copy engine stores no box that begins before its tensor, so the phase is that of the first input.
///
/// Input stride · u + kPhase + a meets tap k = s % stride + stride · i, s = kPhase + a, in output u + s /
/// stride - i.
template <int kKernel, int kStride, int kPhase>
struct UnitWindow {
  static constexpr int kLow1 = -((kKernel - 1 - kPhase) / kStride), kLow2 = 1 - (kKernel - 1) / kStride;
  /// Outputs that a unit's inputs meet: from u + kLow on, kSpan of them.
  static constexpr int kLow = kKernel - 1 < kPhase ? kLow2 : kPhase > 0 && kLow2 < kLow1 ? kLow2 : kLow1;
  static constexpr int kSpan = (kPhase > 0 ? 1 : 0) - kLow + 1;
  /// The tap by which input a of a unit meets output q of its window; it may not exist.
  __device__ static constexpr int tap(int a, int q) {
    return (kPhase + a) % kStride + kStride * ((kPhase + a) / kStride - kLow - q);
  }
};
LAMELLA_ANYWHERE inline Units units_of(const Axis& axis, int residue, int stride, int phase, bool owns,
                                       int owner) {
  Units units{Axis::floor(axis.input_begin(residue) - phase, stride),
              Axis::ceiling(axis.input_end(residue) - phase, stride)};
  if (owns) {
    units.begin = units.begin < owner ? units.begin : owner;
    const int end = axis.outputs(residue) + owner;
    units.end = units.end > end ? units.end : end;
  }
  return units;
}

template <class K, class Tile, bool kInput, bool kWeight, int kPhaseH, int kPhaseW>
struct BackwardBoxes {
  using WindowH = UnitWindow<K::kH, K::kStrideH, kPhaseH>;
  using WindowW = UnitWindow<K::kW, K::kStrideW, kPhaseW>;
  static constexpr int kGRows = Tile::kStepRows + WindowH::kSpan - 1;
  static constexpr int kPageRows = Tile::kWhole ? kGRows : Tile::kStepRows;  ///< of g
  static constexpr int kReach = (kGRows + kPageRows - 1) / kPageRows;
  static constexpr int kXRows = Tile::kStepRows * K::kStrideH;
  static constexpr int kGColumns = Tile::round_columns(Tile::kUnits + WindowW::kSpan - 1);
  static constexpr int kXColumns = Tile::round_columns(Tile::kUnits);
  static constexpr int kGRowBytes = kGColumns * Tile::kPixelBytes, kXRowBytes = kXColumns * Tile::kPixelBytes;
  static constexpr int kGBytes = Tile::box_bytes(kPageRows * kGColumns);
  static constexpr int kPlaneBytes = Tile::box_bytes(kXRows * kXColumns);
  static constexpr int kPageBytes = kGBytes + (kWeight ? K::kStrideW * kPlaneBytes : 0);
  static constexpr int kResultColumns = Tile::kColumns * K::kStrideW;
  static constexpr int kResultBytes = kInput ? Tile::box_bytes(kXRows * kResultColumns) : 0;
  static constexpr int kBarriers = Tile::kPages * kPageBytes + 2 * Tile::kBlocks * kResultBytes;
  static constexpr int kTapGroups = kWeight ? (K::kH + Tile::kTapRows - 1) / Tile::kTapRows : 1;
  static constexpr int kTapSums = kBarriers + 16 * Tile::kPages;
  static constexpr int kSharedBytes =
      1024 + kTapSums + (kWeight ? Tile::kBlocks * (K::kTaps + 1) * Tile::kChannels * 4 : 0);
  static constexpr int kConsumers = Tile::kBlocks * Tile::kWarpGroups * kTapGroups;
  static constexpr int kThreads = 32 * (kConsumers + 1);
  static_assert(Tile::kPages >= kReach);
  static_assert(Tile::kTapRows == K::kH || (!kInput && Tile::kTapRows % K::kStrideH == 0));
};

/// dx of a tile, the parts of dw, or both, in units of the stride.
template <class T, class K, class Tile, bool kInput, bool kWeight, bool kBias, int kPhaseH, int kPhaseW,
          bool kTransforms, int kBlocksOfSm>
__global__ void __launch_bounds__((BackwardBoxes<K, Tile, kInput, kWeight, kPhaseH, kPhaseW>::kThreads),
                                  kBlocksOfSm) backward_boxes(const __grid_constant__ BoxWork boxes) {
  using Sizes = BackwardBoxes<K, Tile, kInput, kWeight, kPhaseH, kPhaseW>;
  using WindowH = typename Sizes::WindowH;
  using WindowW = typename Sizes::WindowW;
  constexpr int kStrideH = K::kStrideH, kStrideW = K::kStrideW, kSpan = WindowW::kSpan;
  constexpr int kEights = Tile::kEights, kPages = Tile::kPages, kReach = Sizes::kReach,
                kTapRows = Tile::kTapRows;
  constexpr int kTapGroups = Sizes::kTapGroups, kConsumers = Sizes::kConsumers, kAll = K::kTaps + 1;
  constexpr int kPairs = kSpan / 2, kPlaces = (kSpan + 1) / 2, kDown = Tile::kDown;
  static_assert(K::kRepeat == 1);
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const int first_channel =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(cut.channel_blocks)) * Tile::kChannels;
  const int part = static_cast<int>(blockIdx.x / static_cast<unsigned>(cut.channel_blocks));
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned base = shared_address(shared), pages = (base + 1023u) & ~1023u;
  const unsigned full = pages + Sizes::kBarriers, empty = full + 8 * kPages;
  float* const tap_sums =
      reinterpret_cast<float*>(reinterpret_cast<char*>(shared) + (pages - base) + Sizes::kTapSums);
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  if constexpr (kWeight) {
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kBlocks * kAll * Tile::kChannels;
         i += Sizes::kThreads)
      tap_sums[i] = 0;
  }
  __syncthreads();

  struct Item {
    int image, class_h, class_w, row, column, steps;  ///< the first units
  };
  const auto item_of = [&](const PixelItem& at) {
    const Units rows = units_of(work.h, at.class_h, kStrideH, kPhaseH, kBias, work.owner_h);
    const Units columns = units_of(work.w, at.class_w, kStrideW, kPhaseW, kBias, work.owner_w);
    const int row = rows.begin + at.strip * cut.strip_rows, column = columns.begin + at.tile * Tile::kUnits;
    const int count = column < columns.end ? max(min(cut.strip_rows, rows.end - row), 0) : 0;
    return Item{at.image, at.class_h, at.class_w,
                row,      column,     (count + Tile::kStepRows - 1) / Tile::kStepRows};
  };

  PageCursor<kPages> cursor;
  if (warp == kConsumers) {
    PixelItem at(work, static_cast<unsigned>(first_item));
#pragma unroll 1
    for (int number = first_item; lane == 0 && number < last_item; ++number, at.advance(work)) {
      const Item item = item_of(at);
      if (item.steps == 0) continue;
      int g_row = item.class_h + (item.row + WindowH::kLow) * work.h.output_step;
      const int g_column = item.class_w + (item.column + WindowW::kLow) * work.w.output_step;
      int x_row = work.h.origin(item.class_h) + (item.row * kStrideH + kPhaseH) * work.h.input_step;
      const int x_column =
          work.w.origin(item.class_w) + (item.column * kStrideW + kPhaseW) * work.w.input_step;
#pragma unroll 1
      for (int page = 0; page < item.steps + kReach - 1; ++page) {
        const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * Sizes::kPageBytes;
        const bool has_x = kWeight && page < item.steps;
        wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
        expect_bytes(barrier, Sizes::kPageRows * Sizes::kGRowBytes +
                                  (has_x ? kStrideW * Sizes::kXRows * Sizes::kXRowBytes : 0));
        load_box(to, boxes.y, first_channel, g_column, g_row, item.image, barrier);
        if (has_x) {
#pragma unroll
          for (int plane = 0; plane < kStrideW; ++plane)
            load_box(to + Sizes::kGBytes + plane * Sizes::kPlaneBytes, boxes.x, first_channel,
                     x_column + plane * work.w.input_step, x_row, item.image, barrier);
        }
        g_row += Sizes::kPageRows * work.h.output_step;
        x_row += Sizes::kXRows * work.h.input_step;
        cursor.next();
      }
    }
  } else {
    const int channel = warp % Tile::kWarpGroups * Tile::kWarpChannels, chunk = channel / 8;
    const int tap_group = kTapGroups > 1 ? warp / Tile::kWarpGroups % kTapGroups : 0;
    const int block = warp / (Tile::kWarpGroups * kTapGroups);
    const bool works = first_channel + channel < cut.channels;
    // Of a part of the taps' rows: the row of the window that is row 0 of the part's.
    using PartH = UnitWindow<kTapRows, kStrideH, kPhaseH>;
    const int down = PartH::kLow - WindowH::kLow - tap_group * (kTapRows / kStrideH);
    const int owner_row = -work.owner_h - WindowH::kLow;  // of the window
    const int owner_group = kTapGroups > 1 ? work.owner_h * kStrideH / kTapRows : 0;
    TapRows<T, K, kInput ? K::kH : 1> taps[kInput ? kEights : 1];
    if constexpr (kInput) {
#pragma unroll
      for (int e = 0; e < kEights; ++e)
        taps[e].load(work.taps, first_channel + channel + e * 8, cut.channels, 0);
    }
    const auto g_place = [&](int pixel, int shift, int of) {
      const int column = block * Tile::kColumns + pixel % Tile::kColumns + min(shift, kSpan - 1);
      return Tile::at(pixel / Tile::kColumns * Sizes::kGColumns + column, of);
    };
    ShiftPlaces<Tile, kSpan> to_input, to_weight;
    if constexpr (kInput) to_input.template find<false>(chunk, g_place);
    if constexpr (kWeight) to_weight.template find<true>(chunk, g_place);
    const int mate = lane % 16;
    const unsigned my_x = Tile::at(
        mate / Tile::kColumns * kStrideH * Sizes::kXColumns + block * Tile::kColumns + mate % Tile::kColumns,
        chunk + (kEights > 1 ? lane / 16 : 0));
    unsigned my_result[kStrideW];
#pragma unroll
    for (int b = 0; b < kStrideW; ++b)
      my_result[b] = Tile::at(
          mate / Tile::kColumns * kStrideH * Sizes::kResultColumns + mate % Tile::kColumns * kStrideW + b,
          chunk + (kEights > 1 ? lane / 16 : 0));
    const unsigned results = pages + kPages * Sizes::kPageBytes + 2 * block * Sizes::kResultBytes;
    const bool stores = kInput && warp % Tile::kWarpGroups == 0 && lane == 0;

    unsigned result = results;
    BoxTransform<T, Tile, kTransforms && kWeight> transform;
    transform.begin(work.transform, first_channel, cut.channels);
    PageCursor<kPages> awaited;
    const auto wait_for_page = [&] {
      wait_for_phase(full + 8 * awaited.slot, awaited.parity);
      awaited.next();
    };
    PixelItem at(work, static_cast<unsigned>(first_item));
#pragma unroll 1
    for (int number = first_item; number < last_item; ++number, at.advance(work)) {
      const Item item = item_of(at);
      if (item.steps == 0) continue;
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) wait_for_page();
      float sums[kWeight ? kTapRows : 1][kStrideW][kPlaces][kEights][4], total[kEights][4];
#pragma unroll
      for (int e = 0; e < kEights; ++e)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[e][i] = 0;
#pragma unroll
          for (int k = 0; k < (kWeight ? kTapRows : 1); ++k)
#pragma unroll
            for (int b = 0; b < kStrideW; ++b)
#pragma unroll
              for (int p = 0; p < kPlaces; ++p) sums[k][b][p][e][i] = 0;
        }
      int out_row = work.h.origin(item.class_h) + (item.row * kStrideH + kPhaseH) * work.h.input_step;
      const int out_column =
          work.w.origin(item.class_w) +
          ((item.column + block * Tile::kColumns) * kStrideW + kPhaseW) * work.w.input_step;
      BoxAxes axes{out_row, work.h.input_step, work.h.input, 0, kStrideW * work.w.input_step, work.w.input};
#pragma unroll 1
      for (int step = 0; step < item.steps; ++step) {
        wait_for_page();
        if constexpr (kTransforms && kWeight) {
          uint4* const x_page =
              shared + (pages - base + cursor.slot * Sizes::kPageBytes + Sizes::kGBytes) / 16;
#pragma unroll
          for (int plane = 0; plane < kStrideW; ++plane) {
            axes.column =
                work.w.origin(item.class_w) + (item.column * kStrideW + kPhaseW + plane) * work.w.input_step;
            transform.template apply<32 * kConsumers, Sizes::kXRows, Sizes::kXColumns>(
                x_page + plane * Sizes::kPlaneBytes / 16, axes);
          }
          axes.row += Sizes::kXRows * work.h.input_step;
          synchronize_some(1 + Tile::kBlocks, 32 * kConsumers);
        }
        if (works) {
          unsigned page[kReach];
#pragma unroll
          for (int p = 0; p < kReach; ++p) {
            const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
            page[p] = pages + slot * Sizes::kPageBytes;
          }
          unsigned x[kWeight ? Tile::kRows : 1][kStrideH][kStrideW][2 * kEights];
          if constexpr (kWeight) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int b = 0; b < kStrideW; ++b)
                  load_matrices_transposed(x[r][a][b], page[0] + Sizes::kGBytes + my_x +
                                                           b * Sizes::kPlaneBytes +
                                                           (r * kDown * kStrideH + a) * Sizes::kXRowBytes);
          }
          float dx[kInput ? Tile::kRows : 1][kStrideH][kStrideW][kEights][4];
          if constexpr (kInput) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int b = 0; b < kStrideW; ++b)
#pragma unroll
                  for (int e = 0; e < kEights; ++e)
#pragma unroll
                    for (int i = 0; i < 4; ++i) dx[r][a][b][e][i] = 0;
          }
#pragma unroll
          for (int j = 0; j < (Tile::kRows - 1) * kDown + PartH::kSpan; ++j) {
            const int row = j + down;
            if (kTapGroups > 1 && row < 0) continue;
            // A product's second row may lie in the next page.
            unsigned from = page[0];
#pragma unroll
            for (int p = 1; p < kReach; ++p) from = row / Sizes::kPageRows == p ? page[p] : from;
            from += row % Sizes::kPageRows * Sizes::kGRowBytes;
            const auto of_lane = [&](int second) {
              if (kDown == 1 || second == 0 || row % Sizes::kPageRows + 1 < Sizes::kPageRows) return from;
              unsigned next = page[0];
#pragma unroll
              for (int p = 1; p < kReach; ++p) next = row / Sizes::kPageRows + 1 == p ? page[p] : next;
              return next - Sizes::kGRowBytes;
            };
            if constexpr (kInput) {
              const unsigned mine = of_lane(lane % 16 / Tile::kColumns);
#pragma unroll
              for (int p = 0; p < kPlaces; ++p) {
                // Shifts 2 · p and 2 · p + 1, of which the last may be alone.
                unsigned g[kEights][4];
                if (p < kPairs) {
#pragma unroll
                  for (int e = 0; e < kEights; ++e)
                    load_matrices(g[e], mine + to_input.pair[p < kPairs ? p : 0][e]);
                } else {
                  unsigned some[2 * kEights];
                  load_matrices(some, mine + to_input.last);
#pragma unroll
                  for (int e = 0; e < kEights; ++e) g[e][0] = some[2 * e], g[e][1] = some[2 * e + 1];
                }
#pragma unroll
                for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
                  for (int a = 0; a < kStrideH; ++a) {
                    const int kh = WindowH::tap(a, j - r * kDown);
                    if (kh < 0 || kh >= K::kH || j < r * kDown) continue;
#pragma unroll
                    for (int b = 0; b < kStrideW; ++b) {
                      const int first = WindowW::tap(b, 2 * p),
                                second = WindowW::tap(b, 2 * p + 1);  // columns of taps
                      const bool has_first = first >= 0 && first < K::kW;
                      const bool has_second = p < kPairs && second >= 0 && second < K::kW;
#pragma unroll
                      for (int e = 0; e < kEights; ++e) {
                        const unsigned* const of = taps[e].tap + kh * K::kW;
                        if (has_first && has_second)
                          multiply_add(dx[r][a][b][e], g[e][0], g[e][1], g[e][2], g[e][3],
                                       of[has_first ? first : 0], of[has_second ? second : 0], T{});
                        else if (has_first)
                          multiply_add(dx[r][a][b][e], g[e][0], g[e][1], of[has_first ? first : 0], T{});
                        else if (has_second)
                          multiply_add(dx[r][a][b][e], g[e][2], g[e][3], of[has_second ? second : 0], T{});
                      }
                    }
                  }
                }
              }
            }
            if constexpr (kWeight) {
              const unsigned mine = of_lane((lane % 8 + lane / 16 * 8) / Tile::kColumns);
#pragma unroll
              for (int p = 0; p < kPlaces; ++p) {
                unsigned g[kEights][4];
#pragma unroll
                for (int e = 0; e < kEights; ++e)
                  load_matrices_transposed(g[e], mine + (p < kPairs ? to_weight.pair[p < kPairs ? p : 0][e]
                                                                    : to_weight.last ^ 16 * e));
#pragma unroll
                for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
                  for (int a = 0; a < kStrideH; ++a) {
                    const int k = PartH::tap(a, j - r * kDown);
                    if (k < 0 || k >= kTapRows || j < r * kDown) continue;
#pragma unroll
                    for (int b = 0; b < kStrideW; ++b) {
                      const int first = WindowW::tap(b, 2 * p), second = WindowW::tap(b, 2 * p + 1);
                      if ((first < 0 || first >= K::kW) && (p >= kPairs || second < 0 || second >= K::kW))
                        continue;
#pragma unroll
                      for (int e = 0; e < kEights; ++e)
                        multiply_add(sums[k][b][p][e], g[e][0], g[e][1], g[e][2], g[e][3], x[r][a][b][2 * e],
                                     x[r][a][b][2 * e + 1], T{});
                    }
                  }
                }
                if constexpr (kBias) {
                  // Each gradient counts once: for the unit whose it is.
                  const int own = row - owner_row, column = -work.owner_w - WindowW::kLow;
                  if (own >= 0 && own % kDown == 0 && own < Tile::kStepRows && tap_group == owner_group &&
                      column / 2 == p) {
                    const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
#pragma unroll
                    for (int e = 0; e < kEights; ++e)
                      multiply_add(total[e], g[e][column % 2], 0u, g[e][2 + column % 2], 0u, ones, ones, T{});
                  }
                }
              }
            }
          }
          if constexpr (kInput) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int b = 0; b < kStrideW; ++b)
                  store_sums<T>(dx[r][a][b],
                                result + my_result[b] +
                                    (r * kDown * kStrideH + a) * Sizes::kResultColumns * Tile::kPixelBytes);
          }
        }
        if constexpr (kInput || kTransforms) hand_to_copy_engine();
        if (stores) wait_until_stores_have_read();  // the other place for results is free
        synchronize_warp();
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
        if constexpr (kInput) {
          if constexpr (Tile::kWarpGroups > 1) synchronize_some(1 + block, 32 * Tile::kWarpGroups);
          if (stores && out_row < work.h.input && out_column < work.w.input) {
            store_box(boxes.dx, result, first_channel, out_column, out_row, item.image, work.accumulate);
            end_stores();
          }
          result = result == results ? results + Sizes::kResultBytes : results;
          out_row += Sizes::kXRows * work.h.input_step;
        }
      }
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) {
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
      }
      if constexpr (kWeight) {
        // The matrix units do not round sums to nearest: long sums are kept elsewhere. Of a product, lane l
        // has columns 2 · (l % 4) and the next of rows l / 4 and l / 4 + 8; wanted are the diagonals.
        if (works && lane / 8 == lane % 4) {
          const int odd = lane / 4 % 2;
          float* const mine = tap_sums + block * kAll * Tile::kChannels + channel + lane / 4;
#pragma unroll
          for (int e = 0; e < kEights; ++e) {
#pragma unroll
            for (int k = 0; k < kTapRows; ++k) {
              const int kh = tap_group * kTapRows + k;
              if (kTapGroups > 1 && kh >= K::kH) continue;
#pragma unroll
              for (int b = 0; b < kStrideW; ++b)
#pragma unroll
                for (int q = 0; q < kSpan; ++q) {
                  const int kw = WindowW::tap(b, q);
                  if (kw < 0 || kw >= K::kW) continue;
                  const float(&sum)[4] = sums[k][b][q / 2][e];
                  mine[(kh * K::kW + kw) * Tile::kChannels + e * 8] +=
                      odd == 0 ? sum[q % 2 * 2] : sum[q % 2 * 2 + 1];
                }
            }
            if (kBias && tap_group == owner_group)
              mine[K::kTaps * Tile::kChannels + e * 8] += odd == 0 ? total[e][0] : total[e][1];
          }
        }
      }
    }
    if (stores) wait_until_stores_have_read();
  }

  if constexpr (kWeight) {
    __syncthreads();
    const int channels = min(Tile::kChannels, cut.channels - first_channel);
    float* const to = work.parts + (static_cast<Int64>(part) * cut.channels + first_channel) * kAll;
    for (int i = static_cast<int>(threadIdx.x); i < channels * kAll; i += Sizes::kThreads) {
      const int c = i / kAll, k = i - c * kAll;
      float sum = 0;
#pragma unroll
      for (int p = 0; p < Tile::kBlocks; ++p) sum += tap_sums[(p * kAll + k) * Tile::kChannels + c];
      to[i] = sum;
    }
  }
}

}  // namespace lamella::depthwise
