#pragma once

#include "boxes.cuh"

/// The weight's gradient of sixteen-bit numbers, channels side by side, by products whose results are taps.
///
/// In units of the stride (that is one here), x[u] and g[v] meet in tap u - v. Of one channel a product is
///   D[(r, a)][(r', b)] += A[(r, a)][c] · B[c][(r', b)], over sixteen columns c,
///   A[(r, a)][c] = x[row r][c + 2a],  B[c][(r', b)] = g[row r'][c - b]:
/// a sum for tap kh = r - r', kw = 2a + b, wanted but where the rows are too far apart; a product of
/// backward_boxes is one for eight channels, of which only the diagonals are wanted. That both factors are
/// shifted is what saves loads: each pixel is loaded once for each shift of its factor, and of kW shifts x
/// has one half and g the other.
///
/// The sixteen rows of A are kShiftRows_ (4 or 8) rows of x in 4 or 2 shifts, the eight columns of B are four
/// rows of g in two. Products whose blocks of rows are as far apart have the same taps: there is one tile of
/// sums for each distance (kSums), kept in registers over rows, columns and images.
///
/// A lane's numbers of a factor are pairs of columns of one channel, while neighbours in a page are channels:
/// it loads eight channels of each of its pixels, and joins halves of two pixels' words. Which columns make a
/// pair is free as long as both factors agree. Columns c and c + 2, for c of 0, 1, 4, 5: then the second
/// pixel of a shift is the first of the next (three pixels make two rows of A), and the eight lanes of a
/// quarter of a load meet different banks: of x, as its box's rows are two pixels more than a multiple of
/// four; of g, as lanes with the same bank have the same pixel.
///
/// Numbers that are not finite spread to other taps of their channel, as 0 · infinity is no number, and to
/// the biases of its eight.
namespace lamella::depthwise {

/// What a kernel is made of. The sixteen columns of a product are neighbours (kColumns_ = 16), or eight of
/// each of two images. A page has kXBlocks_ times kShiftRows_ rows of x and four times kGBlocks_ rows of g.
/// kWhole_: these are all rows of the map, those of g from kLead_ before the first of x. Else a page has the
/// same rows of both, and the rows of g before them are those of the pages before.
///
/// kKeeps_: a lane keeps what it has joined of g for all rows of x that meet it; else it loads that for each
/// of them. kLate_: a block adds up so few products that its sums stay in registers to its end, and then take
/// the place of pages. kBlocks_, kChannels_, kPages_ and kImages_ as of BoxTile; a warp has eight channels.
template <int kColumns_, int kBlocks_, int kShiftRows_, int kXBlocks_, int kGBlocks_, int kLead_,
          int kChannels_, int kPages_, bool kWhole_, bool kKeeps_, int kImages_ = 1, bool kLate_ = false>
struct HankelTile : BoxTile<kColumns_, kBlocks_, 1, kChannels_, 8, 1, kPages_, kWhole_, 0, kImages_> {
  static constexpr int kShiftRows = kShiftRows_, kXBlocks = kXBlocks_, kGBlocks = kGBlocks_, kLead = kLead_;
  static constexpr bool kKeeps = kKeeps_, kLate = kLate_;
  static constexpr int kAtOnce = kColumns_ == 8 ? 2 : 1;  ///< images of a product
  static constexpr int kXRows = kXBlocks * kShiftRows, kGRows = kGBlocks * 4;
  static constexpr int kPerX = kShiftRows / 4;  ///< blocks of g as high as one of x
  static_assert(kShiftRows == 4 || kShiftRows == 8);
  static_assert(kColumns_ == 16 || (kWhole_ && kImages_ / kBlocks_ % 2 == 0));
  static_assert(kWhole_ || (kLead == 0 && kGRows == kXRows && !kLate));
};

template <class K, class Tile>
struct HankelBoxes {
  /// Block I of x meets block J of g in tap rows kLead + 4 · (kPerX · I - J) + r - r': one sum of products
  /// for each kPerX · I - J, from kLow on, in which there are some.
  __host__ __device__ static constexpr int floor(int a) { return a >= 0 ? a / 4 : -((3 - a) / 4); }
  static constexpr int kAllLow = floor(-Tile::kLead - Tile::kShiftRows + 4),
                       kAllHigh = floor(K::kH - 1 - Tile::kLead + 3);
  static constexpr int kFirst = 1 - Tile::kGBlocks, kLast = Tile::kPerX * (Tile::kXBlocks - 1);
  static constexpr int kLow = Tile::kWhole && kAllLow < kFirst ? kFirst : kAllLow,
                       kHigh = Tile::kWhole && kAllHigh > kLast ? kLast : kAllHigh, kSums = kHigh - kLow + 1;
  static constexpr int kBefore = Tile::kWhole ? 0 : kHigh;  ///< blocks of g of the page before
  /// Groups of four rows of taps: of each a lane has one.
  static constexpr int kTapGroups = (K::kH + 3) / 4, kLaneSums = kTapGroups * 8 * 4 + 1;

  static constexpr int kXColumns = Tile::kUnits + 32 / Tile::kShiftRows - 2, kGColumns = Tile::kUnits + 2;
  static constexpr int kXRowBytes = kXColumns * Tile::kPixelBytes, kGRowBytes = kGColumns * Tile::kPixelBytes;
  static constexpr int kXImageBytes = Tile::kXRows * kXRowBytes, kGImageBytes = Tile::kGRows * kGRowBytes;
  static constexpr int kXBytes = Tile::box_bytes(Tile::kImages * Tile::kXRows * kXColumns);
  static constexpr int kGBytes = Tile::box_bytes(Tile::kImages * Tile::kGRows * kGColumns);
  static constexpr int kPageBytes = kXBytes + kGBytes;
  static constexpr int kBarriers = Tile::kPages * kPageBytes;
  static constexpr int kConsumers = Tile::kBlocks * Tile::kWarpGroups, kThreads = 32 * (kConsumers + 1);
  static constexpr int kSumBytes = kConsumers * kLaneSums * 128;
  static constexpr int kTapSums = Tile::kLate ? 0 : kBarriers + 16 * Tile::kPages;
  static constexpr int kSharedBytes = 1024 + kBarriers + 16 * Tile::kPages + (Tile::kLate ? 0 : kSumBytes);
  static_assert(K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1);
  static_assert(K::kW <= 32 / Tile::kShiftRows);  // twice the shifts of x
  static_assert(kXColumns % 4 == 2 && kGColumns % 2 == 0);
  static_assert(kSums > 0 && kBefore <= Tile::kGBlocks && (Tile::kWhole || kLow > -Tile::kPerX));
  static_assert(Tile::kWhole || Tile::kKeeps || Tile::kPages > 1);
  static_assert(!Tile::kLate || kSumBytes <= kBarriers);
};

/// One of eight channels of two pixels.
__device__ __forceinline__ unsigned join_pixels(const Words<16>& first, const Words<16>& second,
                                                int channel) {
  const unsigned a = first.word[channel / 2], b = second.word[channel / 2];
  return channel % 2 == 0 ? join_low(a, b) : join_high(a, b);
}

/// The work of a block, which leaves a part of dw; BoxShare has kInRow.
template <class T, class K, class Tile, bool kBias, bool kInRow>
__device__ __forceinline__ void weigh_hankel_boxes(const BoxWork& boxes, int number_of_block) {
  using Sizes = HankelBoxes<K, Tile>;
  constexpr int kPages = Tile::kPages, kConsumers = Sizes::kConsumers, kAll = K::kTaps + 1;
  constexpr int kBefore = Sizes::kBefore, kSums = Sizes::kSums, kPerX = Tile::kPerX;
  constexpr int kShiftRows = Tile::kShiftRows, kXBlocks = Tile::kXBlocks, kGBlocks = Tile::kGBlocks;
  constexpr int kReach = (K::kW - 1) / 2 * 2;  // of the shifts of x
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const BoxShare share = BoxShare::of<Tile, kInRow>(work, static_cast<unsigned>(number_of_block));
  const int first_channel = share.first_channel;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned base = shared_address(shared), pages = (base + 1023u) & ~1023u;
  const unsigned full = pages + Sizes::kBarriers, empty = full + 8 * kPages;
  char* const bytes = reinterpret_cast<char*>(shared) + (pages - base);
  float* const tap_sums = reinterpret_cast<float*>(bytes + Sizes::kTapSums);
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  wait_for_stream();
  synchronize_block(Sizes::kThreads);

  struct Item {
    int image, class_h, class_w, row, column, steps;  ///< the first units
  };
  const auto item_of = [&](const PixelItem& at) {
    const Units rows = units_of(work.h, at.class_h, 1, kBias, 0);
    const Units columns = product_columns(work.w, at.class_w, kReach, kBias);
    const int row = rows.begin + at.strip * cut.strip_rows, column = columns.begin + at.tile * Tile::kUnits;
    const int count = column < columns.end ? max(min(cut.strip_rows, rows.end - row), 0) : 0;
    return Item{at.image, at.class_h, at.class_w, row, column, (count + Tile::kXRows - 1) / Tile::kXRows};
  };

  PageCursor<kPages> cursor;
  if (warp == kConsumers) {
#pragma unroll 1
    for (int number = share.first; lane == 0 && number < share.last; number += share.step) {
      const Item item = item_of(box_item<Tile>(work, number));
      if (item.steps == 0) continue;
      constexpr int kAhead = kBefore > 0 ? 1 : 0;  // pages without x
      int x_row = work.h.origin(item.class_h) + item.row * work.h.input_step;
      int g_row = item.class_h + (item.row - Tile::kLead - kAhead * Tile::kGRows) * work.h.output_step;
      const int x_column = work.w.origin(item.class_w) + item.column * work.w.input_step;
      const int g_column = item.class_w + (item.column - 1) * work.w.output_step;
#pragma unroll 1
      for (int page = -kAhead; page < item.steps; ++page) {
        const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * Sizes::kPageBytes;
        wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
        expect_bytes(barrier, Tile::kImages * (Sizes::kGImageBytes + (page >= 0 ? Sizes::kXImageBytes : 0)));
        load_box(to + Sizes::kXBytes, boxes.y, first_channel, g_column, g_row, item.image, barrier);
        if (page >= 0) {
          load_box(to, boxes.x, first_channel, x_column, x_row, item.image, barrier);
          x_row += Tile::kXRows * work.h.input_step;
        }
        g_row += Tile::kGRows * work.h.output_step;
        cursor.next();
      }
    }
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int chunk = warp % Tile::kWarpGroups, block = warp / Tile::kWarpGroups;
    const bool works = first_channel + 8 * chunk < cut.channels;
    // A lane has rows lane / 4 and lane / 4 + 8 of the factor of x: two shifts of one row; and column lane /
    // 4 of the factor of g.
    const int of_factor = lane / 4, first_column = Tile::column_of(block) + lane % 2 + lane % 4 / 2 * 4;
    const int x_row = of_factor % kShiftRows;
    const char *x_places[3], *g_places[2];
#pragma unroll
    for (int j = 0; j < 3; ++j)
      x_places[j] =
          bytes +
          Tile::at(x_row * Sizes::kXColumns + first_column + of_factor / kShiftRows * 4 + 2 * j, chunk);
#pragma unroll
    for (int j = 0; j < 2; ++j)
      g_places[j] =
          bytes + Sizes::kXBytes +
          Tile::at(of_factor / 2 * Sizes::kGColumns + first_column + 1 - of_factor % 2 + 2 * j, chunk);
    // Of the columns of the second half of a product.
    constexpr int kXHalf = Tile::kColumns == 16 ? 8 * Tile::kPixelBytes : Sizes::kXImageBytes,
                  kGHalf = Tile::kColumns == 16 ? 8 * Tile::kPixelBytes : Sizes::kGImageBytes;
    const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;

    float* const mine = tap_sums + warp * Sizes::kLaneSums * 32 + lane;
    if constexpr (!Tile::kLate) {
#pragma unroll 1
      for (int i = 0; i < Sizes::kLaneSums; ++i) mine[i * 32] = 0;
      synchronize_warp();  // a bias's sums are another lane's
    }
    float sums[kSums][8][4], total[4];
    const auto clear = [&] {
#pragma unroll
      for (int d = 0; d < kSums; ++d)
#pragma unroll
        for (int e = 0; e < 8; ++e)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[d][e][i] = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) total[i] = 0;
    };
    clear();
    // The matrix units do not round sums to nearest: long sums are kept elsewhere (kLongestChain). Tiles that
    // a lane has no tap of a group in are not wanted, as are those above the last tap.
    const auto add_sum = [&](int to, float sum) {
      if constexpr (Tile::kLate)
        mine[to * 32] = sum;
      else
        mine[to * 32] += sum;
    };
    const int first_group = Axis::floor(Tile::kLead + x_row - lane % 4, 4) + Sizes::kLow;
    const auto end_chain = [&] {
#pragma unroll
      for (int m = 0; m < Sizes::kTapGroups; ++m)
#pragma unroll
        for (int e = 0; e < 8; ++e)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float sum = 0;
#pragma unroll
            for (int d = 0; d < kSums; ++d) sum = first_group == m - d ? sums[d][e][i] : sum;
            add_sum((m * 8 + e) * 4 + i, sum);
          }
      // Of rows that are no shift of g: sums of the channels of two columns, and both halves of a product.
      if (kBias && of_factor % 2 == 0)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& sum = mine[(Sizes::kLaneSums - 1) * 32 + 4 * i];
          sum = (Tile::kLate ? 0 : sum) + total[i] + total[2 + i];
        }
      clear();
    };
    // A block of g: pairs of columns of both halves of a product.
    const auto load_g = [&](int from, unsigned(&g)[8][2]) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Words<16> a = load_words<16>(g_places[0] + from + half * kGHalf),
                        b = load_words<16>(g_places[1] + from + half * kGHalf);
#pragma unroll
        for (int e = 0; e < 8; ++e) g[e][half] = join_pixels(a, b, e);
      }
    };
    const auto add_up = [&](const unsigned(&g)[8][2]) {
      // Of eight channels each has a column of ones, so that their sums are those of a tile. As first factor
      // numbers of g lie in registers as they do as second one; to move them would take more of these.
      if constexpr (kBias) {
        int column = of_factor;
        hold(column);  // else each of the eight has a register while the thread lives
#pragma unroll
        for (int e = 0; e < 8; ++e) multiply_add(total, g[e][0], g[e][1], column == e ? ones : 0u, T{});
      }
    };

    unsigned before[kBefore > 0 ? kBefore : 1][8][2];
    PageCursor<kPages> last;  // of pages that are given back
    const auto give_back = [&] {
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * last.slot);
      last.next();
    };
    int chain = 0;
#pragma unroll 1
    for (int number = share.first; number < share.last; number += share.step) {
      const Item item = item_of(box_item<Tile>(work, number));
      if (item.steps == 0) continue;
      const int images = Tile::images_of(cut, item.image + Tile::image_of(block));
      int page_before = 0;
      if constexpr (kBefore > 0) {
        wait_for_phase(full + 8 * cursor.slot, cursor.parity);
        page_before = cursor.slot * Sizes::kPageBytes;
        if constexpr (Tile::kKeeps) {
#pragma unroll
          for (int j = 0; j < kBefore; ++j)
            load_g(page_before + (kGBlocks - kBefore + j) * 4 * Sizes::kGRowBytes, before[j]);
          give_back();
        }
        cursor.next();
      }
#pragma unroll 1
      for (int step = 0; step < item.steps; ++step) {
        wait_for_phase(full + 8 * cursor.slot, cursor.parity);
        const int page = cursor.slot * Sizes::kPageBytes;
#pragma unroll 1
        for (int n = 0; works && n < images; n += Tile::kAtOnce) {
          const int of_page = Tile::image_of(block) + n;
          const int x_page = page + of_page * Sizes::kXImageBytes,
                    g_page = page + of_page * Sizes::kGImageBytes,
                    g_before = page_before + kGBlocks * 4 * Sizes::kGRowBytes;
          unsigned g[kBefore + kGBlocks][8][2];
          if constexpr (Tile::kKeeps) {
#pragma unroll
            for (int j = 0; j < kBefore; ++j)
#pragma unroll
              for (int e = 0; e < 8; ++e)
#pragma unroll
                for (int half = 0; half < 2; ++half) g[j][e][half] = before[j][e][half];
          }
#pragma unroll
          for (int b = 0; b < kXBlocks; ++b) {
            // Blocks of g that none before has met.
            const int met = b == 0 ? 0 : kPerX * (b - 1) - Sizes::kLow + 1;
            const int meets = b == kXBlocks - 1 ? kGBlocks : kPerX * b - Sizes::kLow + 1;
#pragma unroll
            for (int j = 0; j < kGBlocks; ++j) {
              if (j < met || j >= meets || !(Tile::kKeeps || kBias)) continue;
              load_g(g_page + j * 4 * Sizes::kGRowBytes, g[kBefore + j]);
              add_up(g[kBefore + j]);
            }
            Words<16> x[2][3];
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
              for (int j = 0; j < 3; ++j)
                x[half][j] =
                    load_words<16>(x_places[j] + x_page + b * kShiftRows * Sizes::kXRowBytes + half * kXHalf);
            const auto multiply = [&](int d, int e, const unsigned(&of_g)[2]) {
              unsigned a[4];
#pragma unroll
              for (int i = 0; i < 4; ++i) a[i] = join_pixels(x[i / 2][i % 2], x[i / 2][i % 2 + 1], e);
              multiply_add(sums[d][e], a[0], a[1], a[2], a[3], of_g[0], of_g[1], T{});
            };
            const auto is_there = [&](int j) { return j >= -kBefore && j < kGBlocks; };
            if constexpr (Tile::kKeeps) {
#pragma unroll
              for (int e = 0; e < 8; ++e)
#pragma unroll
                for (int d = 0; d < kSums; ++d) {
                  const int j = kPerX * b - (d + Sizes::kLow);
                  if (is_there(j)) multiply(d, e, g[is_there(j) ? kBefore + j : 0][e]);
                }
            } else {
#pragma unroll
              for (int d = 0; d < kSums; ++d) {
                const int j = kPerX * b - (d + Sizes::kLow);
                if (!is_there(j)) continue;
                unsigned of_g[8][2];
                load_g((j < 0 ? g_before : g_page) + j * 4 * Sizes::kGRowBytes, of_g);
#pragma unroll
                for (int e = 0; e < 8; ++e) multiply(d, e, of_g[e]);
              }
            }
          }
          if constexpr (Tile::kKeeps) {
#pragma unroll
            for (int j = 0; j < kBefore; ++j)
#pragma unroll
              for (int e = 0; e < 8; ++e)
#pragma unroll
                for (int half = 0; half < 2; ++half) before[j][e][half] = g[kGBlocks + j][e][half];
          }
          chain += kXBlocks;
        }
        // Without what is kept, rows of g are wanted once more.
        if (kBefore == 0 || Tile::kKeeps)
          give_back();
        else
          give_back(), page_before = page;
        cursor.next();
        if (!Tile::kLate && works && chain >= kLongestChain) end_chain(), chain = 0;
      }
      if (kBefore > 0 && !Tile::kKeeps) give_back();
    }
    if constexpr (Tile::kLate) synchronize_some(1, 32 * kConsumers);  // nobody reads pages any more
    if (works) end_chain();
  }

  synchronize_block(Sizes::kThreads);
  const int channels = min(Tile::kChannels, cut.channels - first_channel);
  float* const to = work.parts + (static_cast<Int64>(share.part) * cut.channels + first_channel) * kAll;
  for (int i = static_cast<int>(threadIdx.x); i < channels * kAll; i += Sizes::kThreads) {
    const int c = i / kAll, k = i - c * kAll, kh = k / K::kW, kw = k - kh * K::kW, e = c % 8;
    float sum = 0;
#pragma unroll 1
    for (int block = 0; block < Tile::kBlocks; ++block) {
      const float* const of_warp = tap_sums + (block * Tile::kWarpGroups + c / 8) * Sizes::kLaneSums * 32;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int of_g = (n + c + kw) & 3;  // neighbours begin with different ones, in different banks
        if (k == K::kTaps) {
          if (kBias) sum += of_warp[(Sizes::kLaneSums - 1) * 32 + of_g * 8 + e % 2 * 4 + e / 2];
          continue;
        }
        // Rows of x that meet row of_g of a block in one of the tap's rows.
#pragma unroll
        for (int fours = 0; fours < kShiftRows; fours += 4) {
          const int row = fours + ((kh - Tile::kLead + of_g) & 3),
                    at = (kw / 4 * kShiftRows + row) * 4 + of_g;
          sum += of_warp[((kh / 4 * 8 + e) * 4 + kw % 4) * 32 + at];
        }
      }
    }
    to[i] = sum;
  }
}

template <class T, class K, class Tile, bool kBias, int kBlocksOfSm>
__global__ void __launch_bounds__((HankelBoxes<K, Tile>::kThreads), kBlocksOfSm)
    backward_hankel_boxes(const __grid_constant__ BoxWork boxes) {
  weigh_hankel_boxes<T, K, Tile, kBias, false>(boxes, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
