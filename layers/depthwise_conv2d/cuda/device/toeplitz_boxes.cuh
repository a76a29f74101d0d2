#pragma once

#include "boxes.cuh"

/// The output from boxes, of large kernels: strides of one and two, sixteen-bit numbers, channels side by
/// side.
///
/// For one channel and one row of taps,
///   y [16 places][8 columns] += x [16 places][window of 8 columns] · Toeplitz matrix of the taps,
/// whose number in row k and column n is tap k - stride · n: one product of depth 16 for 128 results and a
/// row of up to nine taps (of stride two one of depth 24), where boxes_forward.cuh takes one for 128 results
/// and two taps. A place is a row of x for eight results side by side; the sixteen are rows, columns and
/// images of a tile in any way.
///
/// The first factor has pairs of neighbouring columns of one channel, while a page has channels side by side.
/// So a lane loads eight channels of two neighbours, and exchanges bytes: that makes words of eight products.
/// In the end it has eight channels of each of its results, too: nothing is transposed. Two outputs of a
/// channel share the first factor.
///
/// Numbers that are not finite spread to other results of their row and channel, as 0 · infinity is no
/// number.
namespace lamella::depthwise {

/// What a kernel is made of. A warp has eight channels and sixteen places: kHigh_ of them one below the
/// other, kWide_ side by side, the others of further images. Each place is kTiles_ eights of columns wide and
/// kRows_ rows high: the more, the fewer loads for a result. kAcross_ warps are side by side, kImageGroups_
/// share out the images of an item, and there is one for each eight of kChannels_.
///
/// A page has kPageRows_ rows, which divide those of a step, or are all that one reads (kWhole_). Rows that
/// no result of a map needs may be missing. kBoxColumns_: as BoxTile's.
///
/// kAsks_: one of the warps that compute asks for pages, too. So eight of them share a multiprocessor with no
/// other, and have half as many registers again.
template <int kTiles_, int kRows_, int kHigh_, int kWide_, int kAcross_, int kImageGroups_, int kChannels_,
          int kPageRows_, int kPages_, bool kWhole_, int kBoxColumns_ = 0, bool kAsks_ = false>
struct ToeplitzTile : SwizzledPixels<kChannels_> {
  static constexpr int kTiles = kTiles_, kRows = kRows_, kHigh = kHigh_, kWide = kWide_, kAcross = kAcross_;
  static constexpr int kChannels = kChannels_, kPageRows = kPageRows_, kPages = kPages_;
  static constexpr bool kWhole = kWhole_, kAsks = kAsks_;
  static constexpr int kBoxColumns = kBoxColumns_;
  static constexpr int kDeep = 16 / (kHigh * kWide);  ///< images of a product
  static constexpr int kImages = kImageGroups_ * kDeep, kGroups = kImageGroups_ * kAcross;
  static constexpr int kStepRows = kHigh * kRows, kColumns = kWide * kTiles * 8;  ///< of a group of warps
  static constexpr int kUnits = kAcross * kColumns;                               ///< columns of results
  static_assert(kHigh * kWide * kDeep == 16 && kBoxColumns % 8 == 0);
};

template <class K, class Tile>
struct ForwardToeplitzBoxes {
  static constexpr int kStrideH = K::kStrideH, kStrideW = K::kStrideW, kRepeat = K::kRepeat;
  using Results = SwizzledPixels<Tile::kChannels * kRepeat>;
  static constexpr int kReads = (7 * kStrideW + K::kW + 7) / 8;
  static constexpr int kWindow = kReads > 2 ? kReads : 2;                  ///< of a product, in eights
  static constexpr int kEights = (Tile::kTiles - 1) * kStrideW + kWindow;  ///< of a place
  static constexpr int kInRows = (Tile::kStepRows - 1) * kStrideH + K::kH, kPageRows = Tile::kPageRows;
  static constexpr int kReach = Tile::kWhole ? 1 : (kInRows + kPageRows - 1) / kPageRows;
  /// Pages that a step goes on by.
  static constexpr int kAdvance = Tile::kWhole ? 1 : Tile::kStepRows * kStrideH / kPageRows;
  static constexpr int kXColumns = Tile::kBoxColumns > 0
                                       ? Tile::kBoxColumns
                                       : ((Tile::kUnits - 1) * kStrideW + K::kW + 7) / 8 * 8;
  static constexpr int kRowBytes = kXColumns * Tile::kPixelBytes, kImageBytes = kPageRows * kRowBytes;
  static constexpr int kPageBytes = Tile::box_bytes(Tile::kImages * kPageRows * kXColumns);
  static constexpr int kResultImageBytes = Tile::kStepRows * Tile::kColumns * Results::kPixelBytes;
  static constexpr int kResultBytes = Results::box_bytes(Tile::kDeep * Tile::kStepRows * Tile::kColumns);
  /// Words that a lane has of a row of taps for a product. Of few taps only one eight of its column of the
  /// matrix has any, so that one word is enough for all.
  static constexpr int kWords = K::kW <= (kStrideW == 1 ? 7 : 8) ? 1 : kWindow;
  /// Words that differ between lanes: a table has them for four channels at a time.
  static constexpr int kEntries = kWords == 1 ? 8 : 7 + 7 * kStrideW + 8 * (kWords - 1);
  static constexpr int kTapBytes = 2 * kEntries * 16;          ///< of a row of taps of eight channels
  static constexpr int kOutputBytes = K::kH * kTapBytes + 32;  ///< of one output of eight channels
  static constexpr int kChunkBytes = kRepeat * kOutputBytes;
  /// Where results come later the taps are at first, as they are.
  static constexpr int kTaps = Tile::kChannels * kRepeat * K::kTaps,
                       kTapPageBytes = (2 * kTaps + 1023) / 1024 * 1024;
  static constexpr int kStagedBytes = Tile::kGroups * kResultBytes;
  static constexpr int kStagingBytes = kStagedBytes > kTapPageBytes ? kStagedBytes : kTapPageBytes;
  static constexpr int kTables = Tile::kPages * kPageBytes + kStagingBytes;
  static constexpr int kBarriers = kTables + Tile::kChunks * kChunkBytes;
  static constexpr int kNext = kBarriers + 16 * Tile::kPages, kNextBytes = 32;
  static constexpr int kSharedBytes = 1024 + kNext + (Tile::kAsks ? kNextBytes : 0);
  static constexpr int kConsumers = Tile::kGroups * Tile::kChunks,
                       kThreads = 32 * (kConsumers + (Tile::kAsks ? 0 : 1));
  static_assert(kStrideH <= 2 && kStrideW <= 2 && kRepeat <= 2 && K::kW <= 15);
  static_assert(Tile::kWhole || Tile::kStepRows * kStrideH % kPageRows == 0);
  static_assert(Tile::kPages >= kReach && Tile::kGroups <= 14);
  /// What is read behind a page without all rows is of no use, but must be there.
  static_assert((kInRows - kPageRows) * kRowBytes <= Tile::kGroups * kResultBytes || !Tile::kWhole);
};

/// Makes the tables of a block's taps, [eight][output][row of taps][four][entry][channel], behind those of
/// each output the biases. An entry is the pair of taps t and t + 1 of a row, from the last column's first
/// on; of one word t is -1 to 7, modulo 8. `taps`: room for all of them. All consumers call it, and meet.
template <class T, class K, class Tile>
__device__ __forceinline__ void make_toeplitz_tables(const Parameters& parameters, int first_channel,
                                                     int channels, int thread, T* taps, unsigned* tables) {
  using Sizes = ForwardToeplitzBoxes<K, Tile>;
  constexpr int kEntries = Sizes::kEntries, kThreads = 32 * Sizes::kConsumers, kRepeat = K::kRepeat;
  if (thread < Tile::kChannels * kRepeat) {
    const int part = thread / 8, channel = first_channel + part / kRepeat * 8 + thread % 8;
    const float bias =
        channel < channels ? load_bias<T>(parameters, channel * kRepeat + part % kRepeat) : 0.0f;
    tables[(part + 1) * (Sizes::kOutputBytes / 4) - 8 + thread % 8] = __float_as_uint(bias);
  }
  const int exist = min(Tile::kChannels, channels - first_channel) * kRepeat * K::kTaps;
  copy_taps<T, Sizes::kTaps, kThreads>(parameters, static_cast<Int64>(first_channel) * (kRepeat * K::kTaps),
                                       exist, thread, taps);
  synchronize_some(1 + Tile::kGroups, kThreads);
#pragma unroll 4
  for (int i = thread; i < Tile::kChunks * kRepeat * K::kH * 8 * kEntries; i += kThreads) {
    const int entry = i / 4 % kEntries, half = i / (4 * kEntries) % 2, row = i / (8 * kEntries) % K::kH,
              part = i / (8 * kEntries * K::kH);
    const int channel = part / kRepeat * 8 + half * 4 + i % 4;  // of the block's
    const int first =
        Sizes::kWords == 1 ? (entry == 7 && Sizes::kStrideW == 1 ? -1 : entry) : entry - 7 * Sizes::kStrideW;
    tables[i + part * 8] =
        tap_pair<T, K>(taps + (channel * kRepeat + part % kRepeat) * K::kTaps, row, first, parameters.turned);
  }
  synchronize_some(1 + Tile::kGroups, kThreads);
}

/// What a lane finds where. Of each pair of pixels, lanes of odd rows of a product take the second one first:
/// so eight lanes together meet all banks.
template <class K, class Tile>
struct ToeplitzLane {
  using Sizes = ForwardToeplitzBoxes<K, Tile>;
  /// Places l and l + 8 of a product are so many rows, columns and images apart.
  static constexpr int kRest = 8 / Tile::kHigh;  ///< 0: rows
  static constexpr int kRows = Tile::kHigh == 16 ? 8 * Tile::kRows : 0;
  static constexpr int kTiles = kRest >= Tile::kWide ? 0 : kRest * Tile::kTiles;
  static constexpr int kImages = kRest >= Tile::kWide ? kRest / Tile::kWide : 0;
  static constexpr int kEight = 8 * Tile::kPixelBytes;  ///< bytes
  static constexpr int kXEights = Sizes::kXColumns / 8;

  unsigned x[2];                   ///< the pixels, from the beginning of a page on
  unsigned result[2];              ///< from the beginning of the results on
  unsigned entry;                  ///< of a table's
  unsigned masks[Sizes::kWindow];  ///< which of its words of a product has taps
  unsigned even, odd;              ///< how words for even and odd channels are made of two pixels
  int row, first_eight;
  bool second_first;

  __device__ __forceinline__ ToeplitzLane(int across, int image_group, int chunk) {
    const int lane = static_cast<int>(threadIdx.x) % 32, place = lane / 4, pair = lane % 4 * 2;
    second_first = place % 2 == 1;
    const int rest = place / Tile::kHigh, column = rest % Tile::kWide, image = rest / Tile::kWide;
    const int out_row = place % Tile::kHigh * Tile::kRows;
    row = out_row * Sizes::kStrideH;
    first_eight = (across * Tile::kWide + column) * Tile::kTiles * Sizes::kStrideW;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int pixel = pair + (second_first ? 1 - i : i);
      x[i] = Tile::at(
          ((image_group * Tile::kDeep + image) * Sizes::kPageRows + row) * Sizes::kXColumns + pixel, chunk);
      result[i] = Sizes::Results::at(
          (image * Tile::kStepRows + out_row) * Tile::kColumns + column * Tile::kTiles * 8 + pixel,
          chunk * K::kRepeat);
    }
    const int t = pair - Sizes::kStrideW * place;
    entry = static_cast<unsigned>(Sizes::kWords == 1 ? t & 7 : t + 7 * Sizes::kStrideW) * 16;
#pragma unroll
    for (int w = 0; w < Sizes::kWindow; ++w) {
      masks[w] = ((Sizes::kStrideW == 1 ? 6 : 7) - t) / 8 == w ? ~0u : 0u;
      hold(masks[w]);
    }
    even = second_first ? 0x1054u : 0x5410u, odd = second_first ? 0x3276u : 0x7632u;
    hold(even), hold(odd);
  }

  /// Where eight `eight` of the lane's place, or of the one eight further, begins in a row. Behind the box
  /// there is what is of no use, or zero as the first columns are (BoxTile::kBoxColumns).
  __device__ __forceinline__ unsigned eight_at(int half, int eight) const {
    constexpr int kMost = (Tile::kAcross * Tile::kWide - 1) * Tile::kTiles * Sizes::kStrideW;
    const int at = first_eight + half * kTiles * Sizes::kStrideW + eight;
    if (kMost + eight < kXEights) return static_cast<unsigned>(at * kEight);
    return static_cast<unsigned>(at < kXEights ? at * kEight : 0);
  }
};

/// The work of a block: y of a tile, all steps of all its items (BoxShare has kInRow).
template <class T, class K, class Tile, bool kInRow>
__device__ __forceinline__ void multiply_toeplitz_boxes(const BoxWork& boxes, int number_of_block) {
  using Sizes = ForwardToeplitzBoxes<K, Tile>;
  using Lane = ToeplitzLane<K, Tile>;
  constexpr int kPages = Tile::kPages, kReach = Sizes::kReach, kAdvance = Sizes::kAdvance;
  constexpr int kTiles = Tile::kTiles, kRows = Tile::kRows, kWords = Sizes::kWords;
  constexpr int kWindow = Sizes::kWindow, kStrideH = Sizes::kStrideH, kStrideW = Sizes::kStrideW;
  constexpr int kRepeat = K::kRepeat;
  constexpr int kTapRing = (kRows - 1) * kStrideH + 1;  ///< rows of taps that one of x meets, at most
  constexpr int kConsumers = Sizes::kConsumers, kChunks = Tile::kChunks;
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const BoxShare share = BoxShare::of<Tile, kInRow>(work, static_cast<unsigned>(number_of_block));
  const int first_channel = share.first_channel;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned base = shared_address(shared), pages = (base + 1023u) & ~1023u,
                 full = pages + Sizes::kBarriers, empty = full + 8 * kPages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  wait_for_stream();
  synchronize_block(Sizes::kThreads);
  PageCursor<kPages> cursor, asked;
  const auto ask_for = [&](int column, int row, int at_image) {
    const unsigned barrier = full + 8 * asked.slot;
    wait_for_phase(empty + 8 * asked.slot, asked.parity ^ 1);
    expect_bytes(barrier, Tile::kImages * Sizes::kImageBytes);
    load_box(pages + asked.slot * Sizes::kPageBytes, boxes.x, first_channel, column, row, at_image, barrier);
    asked.next();
  };
  if (!Tile::kAsks && warp == kConsumers) {
    if (lane == 0) each_page<K, Tile, Sizes, kAdvance>(work, share, ask_for);
    return;
  }
  // Which page is to be asked for next: of one thread, which has no registers for it.
  struct Next {
    PagePlace place;
    PageCursor<kPages> cursor;
  };
  static_assert(sizeof(Next) <= Sizes::kNextBytes && kReach >= kAdvance);
  Next& next = *reinterpret_cast<Next*>(reinterpret_cast<char*>(shared) + (pages - base) + Sizes::kNext);
  const bool asks = Tile::kAsks && threadIdx.x == 0;
  const auto ask = [&](int room, bool is_first) {
    if (!asks) return;
    PageWalk<K, Tile, Sizes, kAdvance> walk(work, share);
    if (is_first)
      walk.begin();
    else
      walk.at = next.place, asked = next.cursor;
#pragma unroll 1
    for (; room > 0 && walk.has(); --room, walk.next()) ask_for(walk.at.column, walk.at.row, walk.at.image);
    next.place = walk.at, next.cursor = asked;
  };
  ask(kPages, true);
  synchronize_warp();  // one lane was away
  // The first pages are on their way.
  unsigned* const tables =
      reinterpret_cast<unsigned*>(reinterpret_cast<char*>(shared) + (pages - base) + Sizes::kTables);
  make_toeplitz_tables<T, K, Tile>(
      work.taps, first_channel, cut.channels, static_cast<int>(threadIdx.x),
      reinterpret_cast<T*>(reinterpret_cast<char*>(shared) + (pages - base) + kPages * Sizes::kPageBytes),
      tables);

  const int chunk = warp % kChunks, group = warp / kChunks, across = group % Tile::kAcross,
            image_group = group / Tile::kAcross;
  const Lane my(across, image_group, chunk);
  const unsigned table = pages + Sizes::kTables + chunk * Sizes::kChunkBytes;
  const unsigned results = pages + kPages * Sizes::kPageBytes + group * Sizes::kResultBytes;
  const bool stores = chunk == 0 && lane == 0, has_channels = first_channel + chunk * 8 < cut.channels;

  PageCursor<kPages> awaited;
  const auto wait_for_pages = [&](int count) {
#pragma unroll
    for (int p = 0; p < count; ++p) {
      wait_for_phase(full + 8 * awaited.slot, awaited.parity);
      awaited.next();
    }
  };
  const auto release_pages = [&](int count) {
    synchronize_warp();
#pragma unroll 1
    for (int p = 0; p < count; ++p) {
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
    }
  };
#pragma unroll 1
  for (int item = share.first; item < share.last; item += share.step) {
    const PixelItem at = box_item<Tile>(work, item);
    const int steps = steps_of<Tile>(work, at);
    if (steps == 0) continue;
    wait_for_pages(kReach - kAdvance);
    const int image = at.image + image_group * Tile::kDeep;
    const int unit = at.tile * Tile::kUnits + across * Tile::kColumns;
    const bool exists = image < cut.images && unit < work.w.outputs(at.class_w);
    const int out_column = at.class_w + unit * work.w.output_step;
    int out_row = at.class_h + at.strip * cut.strip_rows * work.h.output_step;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      wait_for_pages(kAdvance);
      float sums[kRepeat][kRows][kTiles][8][4];
      if (has_channels && exists) {
        unsigned page[kReach];  // where row 0 would be, if the page had all rows
#pragma unroll
        for (int p = 0; p < kReach; ++p) {
          const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
          page[p] = pages + slot * Sizes::kPageBytes - p * Sizes::kImageBytes;
        }
#pragma unroll
        for (int m = 0; m < kRepeat; ++m) {
          unsigned bias[2][4];
#pragma unroll
          for (int i = 0; i < 2; ++i)
            load_shared(bias[i], table + (m + 1) * Sizes::kOutputBytes - 32 + 16 * i);
#pragma unroll
          for (int r = 0; r < kRows; ++r)
#pragma unroll
            for (int u = 0; u < kTiles; ++u)
#pragma unroll
              for (int c = 0; c < 8; ++c)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[m][r][u][c][i] = __uint_as_float(bias[c / 4][c % 4]);
        }
        unsigned taps[kRepeat][kTapRing][kWords][2][4];  // of the rows of taps that row j of x meets
#pragma unroll
        for (int j = 0; j < (kRows - 1) * kStrideH + K::kH; ++j) {
          if (j < K::kH) {
#pragma unroll
            for (int m = 0; m < kRepeat; ++m)
#pragma unroll
              for (int w = 0; w < kWords; ++w)
#pragma unroll
                for (int i = 0; i < 2; ++i)
                  load_shared(taps[m][j % kTapRing][w][i], table + m * Sizes::kOutputBytes +
                                                               j * Sizes::kTapBytes +
                                                               i * Sizes::kEntries * 16 + w * 128 + my.entry);
          }
          // Of the two halves of a product.
          unsigned from[2];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            from[half] = page[0];
            const int row = my.row + half * Lane::kRows * kStrideH + j;
#pragma unroll
            for (int p = 1; p < kReach; ++p)
              if (row >= p * Sizes::kPageRows) from[half] = page[p];
            from[half] += (half * Lane::kRows * kStrideH + j) * Sizes::kRowBytes +
                          half * Lane::kImages * Sizes::kImageBytes;
          }
          unsigned x[Sizes::kEights][2][8];
#pragma unroll
          for (int eight = 0; eight < Sizes::kEights; ++eight) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              unsigned first[4], second[4];
              load_shared(first, from[half] + my.x[0] + my.eight_at(half, eight));
              load_shared(second, from[half] + my.x[1] + my.eight_at(half, eight));
#pragma unroll
              for (int c = 0; c < 8; ++c)
                x[eight][half][c] = select_bytes(first[c / 2], second[c / 2], c % 2 == 0 ? my.even : my.odd);
            }
            const int behind = eight - (kWindow - 1), u = behind / kStrideW, first = u * kStrideW;
            if (behind < 0 || behind % kStrideW != 0) continue;
#pragma unroll
            for (int n = 0; n < kRows * kRepeat; ++n) {
              const int r = n / kRepeat, m = n % kRepeat, tap_row = j - r * kStrideH;
              if (tap_row < 0 || tap_row >= K::kH) continue;
              const unsigned(&of_row)[kWords][2][4] = taps[m][tap_row % kTapRing];
              const auto word = [&](int w, int c) {
                return kWords == 1 ? of_row[0][c / 4][c % 4] & my.masks[w] : of_row[w % kWords][c / 4][c % 4];
              };
#pragma unroll
              for (int w = 0; w < kWindow; w += 2)
#pragma unroll
                for (int c = 0; c < 8; ++c) {
                  float(&sum)[4] = sums[m][r][u][c];
                  if (w + 1 == kWindow) {
                    multiply_add(sum, x[first + w][0][c], x[first + w][1][c], word(w, c), T{});
                    continue;
                  }
                  // An eight stays in the same half of the first factor, for either product that has it.
                  const int a = kStrideW == 1 && w == 0 ? first % 2 : w, b = 2 * w + 1 - a;
                  multiply_add(sum, x[first + a][0][c], x[first + a][1][c], x[first + b][0][c],
                               x[first + b][1][c], word(a, c), word(b, c), T{});
                }
            }
          }
        }
      }
      const int read = step + 1 < steps ? kAdvance : kReach;  // pages that nobody reads again
      release_pages(read);
      if (stores) wait_until_stores_have_read();  // the place for results is free
      synchronize_warp();
      synchronize_some(1 + group, 32 * kChunks);
      ask(read, false);  // all warps, or those of this group, have read them
      synchronize_warp();
      if (has_channels && exists) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int r = 0; r < kRows; ++r)
#pragma unroll
            for (int u = 0; u < kTiles; ++u) {
              const unsigned to =
                  results + half * Lane::kImages * Sizes::kResultImageBytes +
                  ((half * Lane::kRows + r) * Tile::kColumns + (half * Lane::kTiles + u) * 8) *
                      Sizes::Results::kPixelBytes;
#pragma unroll
              for (int e = 0; e < kRepeat; ++e) {
                unsigned pixel[2][4];
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                  for (int k = 0; k < 4; ++k) {
                    const int n = 2 * half + i;
                    pixel[i][k] = kRepeat == 1
                                      ? narrow_pair(sums[0][r][u][2 * k][n], sums[0][r][u][2 * k + 1][n], T{})
                                      : narrow_pair(sums[0][r][u][4 * e + k][n],
                                                    sums[kRepeat - 1][r][u][4 * e + k][n], T{});
                  }
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                  unsigned mine[4];
#pragma unroll
                  for (int k = 0; k < 4; ++k) mine[k] = my.second_first ? pixel[1 - i][k] : pixel[i][k];
                  store_shared(to + (my.result[i] ^ (e * 16)), mine);
                }
              }
            }
      }
      hand_to_copy_engine();
      synchronize_warp();
      synchronize_some(1 + group, 32 * kChunks);
      if (stores && exists) {
        store_box(boxes.y, results, first_channel * kRepeat, out_column, out_row, image);
        end_stores();
      }
      out_row += Tile::kStepRows * work.h.output_step;
    }
  }
  if (stores) wait_until_stores_have_read();
}

template <class T, class K, class Tile, int kBlocksOfSm>
__global__ void __launch_bounds__((ForwardToeplitzBoxes<K, Tile>::kThreads), kBlocksOfSm)
    forward_toeplitz_boxes(const __grid_constant__ BoxWork boxes) {
  multiply_toeplitz_boxes<T, K, Tile, false>(boxes, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
