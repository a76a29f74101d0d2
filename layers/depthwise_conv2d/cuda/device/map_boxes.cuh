#pragma once

#include "boxes.cuh"

/// The output of small maps from boxes: stride one, sixteen-bit numbers, channels side by side.
///
/// For one channel and eight images,
///   y [16 pixels][8 images] += matrix of the taps [16 pixels][16 pixels] · x [16 pixels][8 images].
/// Sixteen pixels are a row of up to sixteen columns, or two rows of up to eight. The matrix depends on
/// nothing but how many rows apart source and result lie: a lane keeps all kMatrices of them in registers.
/// What lies beside a map needs no place in a page, as the matrix has no taps for it.
///
/// Of larger maps eight images would leave room for no second page: a product has two bands of rows of four
/// images each in place of them. Then a page has the rows of zeros above and below a map, so that the same
/// products do for both bands.
///
/// As for Toeplitz boxes, a lane loads some channels of two neighbours and exchanges bytes. A warp has all
/// pixels of the channels of a turn in registers before it multiplies, and puts the results where those were:
/// a page is loaded, overwritten and stored.
///
/// Numbers that are not finite spread to other results of their map (of bands: of theirs), as 0 · infinity is
/// no number.
namespace lamella::depthwise {

/// What a kernel is made of, for maps of so many rows with kLead_ rows of padding above. kWidth_, 8 or 16:
/// columns of a page, as many as a map has or more. A warp has kWarpChannels_ (2, 4 or 8) at a time, in
/// kTurns_ turns, and kGroups_ warps have the same channels of a page's images.
template <int kWidth_, int kInRows_, int kOutRows_, int kLead_, int kBands_, int kChannels_,
          int kWarpChannels_, int kTurns_, int kGroups_, int kPages_>
struct MapTile : SwizzledPixels<kChannels_> {
  static constexpr int kWidth = kWidth_, kInRows = kInRows_, kOutRows = kOutRows_, kLead = kLead_;
  static constexpr int kBands = kBands_, kChannels = kChannels_, kWarpChannels = kWarpChannels_;
  static constexpr int kTurns = kTurns_, kGroups = kGroups_, kPages = kPages_;
  static constexpr int kAtOnce = 8 / kBands;  ///< images of a product
  static constexpr int kImages = kGroups * kAtOnce;
  static constexpr int kBandRows = (kOutRows + kBands - 1) / kBands;
  static constexpr int kRowsAtOnce = 16 / kWidth;  ///< rows of sixteen pixels
  static constexpr int kChannelWarps = kChannels / (kWarpChannels * kTurns);
  static_assert(kWidth == 8 || kWidth == 16);
  static_assert(kBands == 1 || (kBands == 2 && kWidth == 16));
  static_assert(kWarpChannels * kTurns <= 8 && kChannels % (kWarpChannels * kTurns) == 0);
};

template <class K, class Tile>
struct MapBoxes {
  static constexpr int kRowsAtOnce = Tile::kRowsAtOnce, kBands = Tile::kBands;
  /// Rows of a page before those of the first band's results.
  static constexpr int kFirst = kBands == 1 ? 0 : Tile::kLead;
  static constexpr int kMostRows = Tile::kInRows > Tile::kOutRows ? Tile::kInRows : Tile::kOutRows;
  static constexpr int kPageRows = kBands == 1 ? (kMostRows + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce
                                               : kBands * Tile::kBandRows + K::kH - 1;
  /// Sixteens of results and of sources of a band. Source j meets result i in the rows of taps kRowsAtOnce ·
  /// (j - i) + kShift and, of two rows, in the one before and the one behind.
  static constexpr int kResults = (Tile::kBandRows + kRowsAtOnce - 1) / kRowsAtOnce;
  static constexpr int kSources =
      kBands == 1 ? (Tile::kInRows + kRowsAtOnce - 1) / kRowsAtOnce : Tile::kBandRows + K::kH - 1;
  static constexpr int kShift = kBands == 1 ? Tile::kLead : 0;
  static constexpr int kAllLowest = -((kShift + kRowsAtOnce - 1) / kRowsAtOnce),
                       kAllHighest = (K::kH + kRowsAtOnce - 2 - kShift) / kRowsAtOnce;
  static constexpr int kLowest = kAllLowest > 1 - kResults ? kAllLowest : 1 - kResults,
                       kHighest = kAllHighest < kSources - 1 ? kAllHighest : kSources - 1,
                       kMatrices = kHighest - kLowest + 1;
  /// Pairs of taps of a row, by how many columns a source is behind its result, from -kMiddle on.
  static constexpr int kMiddle = Tile::kWidth - 1, kEntries = 2 * Tile::kWidth - 2;
  static constexpr int kTapBytes = K::kH * kEntries * 4;  ///< of a channel
  static constexpr int kImagePixels = kPageRows * Tile::kWidth;
  static constexpr int kPageBytes = Tile::box_bytes(Tile::kImages * kImagePixels);
  static constexpr int kTables = Tile::kPages * kPageBytes, kBiases = kTables + Tile::kChannels * kTapBytes;
  static constexpr int kTapsAt = kBiases + Tile::kChannels * 4;  ///< as they are
  static constexpr int kBarriers = kTapsAt + Tile::kChannels * K::kTaps * 2;
  static constexpr int kSharedBytes = 1024 + kBarriers + 16 * Tile::kPages;
  static constexpr int kConsumers = Tile::kGroups * Tile::kChannelWarps, kThreads = 32 * (kConsumers + 1);
  static_assert(K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1);
  static_assert(kShift < K::kH && Tile::kLead < K::kH && kMatrices > 0);
};

/// Makes the tables of a block's taps, [channel][row of taps][entry], and of its biases. An entry is a pair
/// of neighbouring taps.
template <class T, class K, class Tile>
__device__ __forceinline__ void make_map_tables(const PixelWork& work, int first_channel, int thread,
                                                char* bytes) {
  using Sizes = MapBoxes<K, Tile>;
  constexpr int kThreads = 32 * Sizes::kConsumers;
  unsigned* const tables = reinterpret_cast<unsigned*>(bytes + Sizes::kTables);
  float* const biases = reinterpret_cast<float*>(bytes + Sizes::kBiases);
  T* const taps = reinterpret_cast<T*>(bytes + Sizes::kTapsAt);
  const Parameters& parameters = work.taps;
  const int channels = min(Tile::kChannels, work.cut.channels - first_channel);
  for (int i = thread; i < Tile::kChannels; i += kThreads)
    biases[i] = i < channels ? load_bias<T>(parameters, first_channel + i) : 0.0f;
  copy_taps<T, Tile::kChannels * K::kTaps, kThreads>(parameters, static_cast<Int64>(first_channel) * K::kTaps,
                                                     channels * K::kTaps, thread, taps);
  synchronize_some(1, kThreads);
  const int padding = -work.w.origin(0);
#pragma unroll 4
  for (int i = thread; i < Tile::kChannels * K::kH * Sizes::kEntries; i += kThreads) {
    const int entry = i % Sizes::kEntries, row = i / Sizes::kEntries % K::kH,
              channel = i / (Sizes::kEntries * K::kH);
    tables[i] =
        tap_pair<T, K>(taps + channel * K::kTaps, row, entry - Sizes::kMiddle + padding, parameters.turned);
  }
  synchronize_some(1, kThreads);
}

/// What a lane finds where, for channels from `channel` on and the images of a group of warps. It has pixels
/// 2 · (lane % 4) and the next of image lane / 4, and results of pixel lane / 4 of images 2 · (lane % 4) and
/// the next. Of each pair of pixels, lanes of odd images take the second one first: so they meet more banks.
template <class K, class Tile>
struct MapLane {
  using Sizes = MapBoxes<K, Tile>;

  unsigned sources[2];  ///< from the beginning of a page on
  unsigned results[2];  ///< addresses in the first page
  unsigned even, odd;   ///< how words for even and odd channels are made of two pixels
  int taps;             ///< from the middle of a table's row to the lane's first pair

  __device__ __forceinline__ MapLane(unsigned pages, int group, int channel) {
    const int lane = static_cast<int>(threadIdx.x) % 32, of_factor = lane / 4, pair = lane % 4 * 2;
    const bool second_first = of_factor % 2 == 1;
    const auto first_pixel = [&](int n) {
      return (group * Tile::kAtOnce + n % Tile::kAtOnce) * Sizes::kImagePixels +
             n / Tile::kAtOnce * Tile::kBandRows * Tile::kWidth;
    };
    const auto place_of = [&](int pixel) { return Tile::at(pixel, channel / 8) + channel % 8 * 2; };
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sources[i] = place_of(first_pixel(of_factor) + pair + (second_first ? 1 - i : i));
      results[i] = pages + place_of(first_pixel(pair + i) + Sizes::kFirst * Tile::kWidth + of_factor);
    }
    even = second_first ? 0x1054u : 0x5410u, odd = second_first ? 0x3276u : 0x7632u;
    hold(even), hold(odd);
    taps = pair - of_factor;
  }
};

/// What one lane does: it asks for the pages of all items, as many ahead as there are, and stores each when
/// the consumers are done with it.
template <class K, class Tile>
__device__ __forceinline__ void move_map_pages(const BoxWork& boxes, const BoxShare& share, unsigned pages,
                                               unsigned full, unsigned done) {
  using Sizes = MapBoxes<K, Tile>;
  constexpr int kImages = Tile::kImages, kImageBytes = Sizes::kImagePixels * Tile::kPixelBytes;
  const auto load = [&](int item, int slot) {
    if (item >= share.last) return;
    expect_bytes(full + 8 * slot, kImages * kImageBytes);
    load_box(pages + slot * Sizes::kPageBytes, boxes.x, share.first_channel, 0, -Sizes::kFirst,
             item * kImages, full + 8 * slot);
  };
#pragma unroll 1
  for (int s = 0; s < Tile::kPages; ++s) load(share.first + s * share.step, s);
  PageCursor<Tile::kPages> cursor;
#pragma unroll 1
  for (int item = share.first; item < share.last; item += share.step) {
    const unsigned page = pages + cursor.slot * Sizes::kPageBytes;
    const int image = item * kImages;
    wait_for_phase(done + 8 * cursor.slot, cursor.parity);
    if constexpr (Tile::kBands == 1) {
      store_box(boxes.y, page, share.first_channel, 0, 0, image);
    } else {
#pragma unroll 1
      for (int n = 0; n < min(kImages, boxes.work.cut.images - image); ++n)
        store_box(boxes.y, page + n * kImageBytes + Sizes::kFirst * Tile::kWidth * Tile::kPixelBytes,
                  share.first_channel, 0, 0, image + n);
    }
    end_stores();
    wait_until_stores_have_read();
    load(item + Tile::kPages * share.step, cursor.slot);
    cursor.next();
  }
}

/// The work of a block: y of some channels, of all its items.
template <class T, class K, class Tile, int kBlocksOfSm>
__global__ void __launch_bounds__((MapBoxes<K, Tile>::kThreads), kBlocksOfSm)
    forward_map_boxes(const __grid_constant__ BoxWork boxes) {
  using Sizes = MapBoxes<K, Tile>;
  constexpr int kPages = Tile::kPages, kConsumers = Sizes::kConsumers, kImages = Tile::kImages;
  constexpr int kWarpChannels = Tile::kWarpChannels, kTurns = Tile::kTurns, kRowsAtOnce = Tile::kRowsAtOnce;
  constexpr int kPixelBytes = Tile::kPixelBytes;
  constexpr int kLowest = Sizes::kLowest, kHighest = Sizes::kHighest;
  // Products of eight results and channels in turn: one waits for the last of its own.
  constexpr int kResultsAtOnce = 8 / kWarpChannels;
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const BoxShare share = BoxShare::of<Tile, false>(work, blockIdx.x);
  const int first_channel = share.first_channel;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned base = shared_address(shared), pages = (base + 1023u) & ~1023u,
                 full = pages + Sizes::kBarriers, done = full + 8 * kPages;
  char* const bytes = reinterpret_cast<char*>(shared) + (pages - base);
  const unsigned* const tables = reinterpret_cast<const unsigned*>(bytes + Sizes::kTables);
  const float* const biases = reinterpret_cast<const float*>(bytes + Sizes::kBiases);
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(done + 8 * s, kConsumers);
  }
  wait_for_stream();
  synchronize_block(Sizes::kThreads);
  if (warp == kConsumers) {
    if (lane == 0) move_map_pages<K, Tile>(boxes, share, pages, full, done);
    return;
  }
  // The first pages are on their way.
  make_map_tables<T, K, Tile>(work, first_channel, static_cast<int>(threadIdx.x), bytes);

  const int group = warp / Tile::kChannelWarps,
            channel = warp % Tile::kChannelWarps * (kWarpChannels * kTurns);
  const bool has_bias = work.taps.bias != nullptr;
  const bool has_channels = first_channel + channel < cut.channels;
  const MapLane<K, Tile> my(pages, group, channel);

  unsigned matrix[Sizes::kMatrices][kWarpChannels][4];
  const auto load_taps = [&](int turn) {
    const int of = channel + turn * kWarpChannels;
    const unsigned* const table = tables + of * (Sizes::kTapBytes / 4) + Sizes::kMiddle + my.taps;
#pragma unroll
    for (int c = 0; c < kWarpChannels; ++c) {
#pragma unroll
      for (int d = kLowest; d <= kHighest; ++d)
#pragma unroll
        for (int quarter = 0; quarter < 4; ++quarter) {
          // By halves of results and of sources: columns, or rows.
          const int apart = quarter / 2 - quarter % 2;
          const int row = kRowsAtOnce * d + Sizes::kShift + (kRowsAtOnce == 2 ? apart : 0),
                    column = kRowsAtOnce == 2 ? 0 : 8 * apart;
          matrix[d - kLowest][c][quarter] =
              row >= 0 && row < K::kH ? table[(c * K::kH + row) * Sizes::kEntries + column] : 0u;
        }
    }
  };
  if constexpr (kTurns == 1) load_taps(0);
  PageCursor<kPages> cursor;

#pragma unroll 1
  for (int item = share.first; item < share.last; item += share.step) {
    wait_for_phase(full + 8 * cursor.slot, cursor.parity);
    const unsigned page = cursor.slot * Sizes::kPageBytes;
    const bool exists = has_channels && item * kImages + group * Tile::kAtOnce < cut.images;
#pragma unroll 1
    for (int turn = 0; turn < kTurns && exists; ++turn) {
      const unsigned at = page + turn * kWarpChannels * 2;
      if constexpr (kTurns > 1) load_taps(turn);
      unsigned x[Sizes::kSources][2][kWarpChannels];
#pragma unroll
      for (int j = 0; j < Sizes::kSources; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const unsigned from = at + (16 * j + 8 * half) * kPixelBytes;
          const auto first = load_words<2 * kWarpChannels>(bytes + from + my.sources[0]),
                     second = load_words<2 * kWarpChannels>(bytes + from + my.sources[1]);
#pragma unroll
          for (int c = 0; c < kWarpChannels; ++c)
            x[j][half][c] =
                select_bytes(first.word[c / 2], second.word[c / 2], c % 2 == 0 ? my.even : my.odd);
        }
      synchronize_warp();  // all of it is read
#pragma unroll
      for (int first = 0; first < Sizes::kResults; first += kResultsAtOnce) {
        float sums[kResultsAtOnce][kWarpChannels][4];
#pragma unroll
        for (int r = 0; r < kResultsAtOnce; ++r)
#pragma unroll
          for (int c = 0; c < kWarpChannels; ++c)
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[r][c][e] = 0;
#pragma unroll
        for (int j = 0; j < Sizes::kSources; ++j)
#pragma unroll
          for (int r = 0; r < kResultsAtOnce; ++r) {
            const int d = j - first - r;
            if (first + r >= Sizes::kResults || d < kLowest || d > kHighest) continue;
#pragma unroll
            for (int c = 0; c < kWarpChannels; ++c) {
              const unsigned(&of)[4] = matrix[d - kLowest][c];
              multiply_add(sums[r][c], of[0], of[1], of[2], of[3], x[j][0][c], x[j][1][c], T{});
            }
          }
        if (has_bias) {
#pragma unroll
          for (int c = 0; c < kWarpChannels; ++c) {
            const float bias = biases[channel + turn * kWarpChannels + c];
#pragma unroll
            for (int r = 0; r < kResultsAtOnce; ++r)
#pragma unroll
              for (int e = 0; e < 4; ++e) sums[r][c][e] += bias;
          }
        }
#pragma unroll
        for (int r = 0; r < kResultsAtOnce; ++r)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            if (first + r >= Sizes::kResults) continue;
            unsigned word[kWarpChannels / 2];
#pragma unroll
            for (int k = 0; k < kWarpChannels / 2; ++k)
              word[k] = narrow_pair(sums[r][2 * k][e], sums[r][2 * k + 1][e], T{});
            store_shared(my.results[e % 2] + at + (16 * (first + r) + e / 2 * 8) * kPixelBytes, word);
          }
      }
    }
    hand_to_copy_engine();
    synchronize_warp();
    if (lane == 0) arrive(done + 8 * cursor.slot);
    cursor.next();
  }
}

}  // namespace lamella::depthwise
