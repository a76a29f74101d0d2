#pragma once

#include "matrices.cuh"

/// The forward by matrices (matrices.cuh), or the input's gradient.
namespace lamella::depthwise {

/// The work of a block. Stride and dilation are 1. All images of x begin with a word, and those of y where
/// kOut is even.
template <class T, class K, class Plane, class Tile, bool kBands, int kThreads>
__device__ __forceinline__ void multiply_matrices(const PlaneWork& work, int number_of_block) {
  constexpr int kIn = Plane::kIn, kOut = Plane::kOut;
  using Sizes = ForwardMatrices<K, Tile, kOut>;
  constexpr int kRows = Tile::kRows, kPieces = Tile::kPieces, kWindowRows = Sizes::kWindowRows;
  constexpr int kPages = Tile::kPages, kSpan = Sizes::kSpan, kTogether = Sizes::kTogether;
  constexpr int kConsumers = kThreads / 32 - 1, kWorkers = 32 * kConsumers;
  constexpr int kPlanes = kConsumers / Tile::kWarps * Tile::kHeld;  // of a block
  constexpr int kNumbers = RunBytes<T>::kNumbers;
  constexpr bool kOddIn = kIn % 2 == 1, kOddOut = kOut % 2 == 1;
  constexpr int kSides = kOddIn ? 2 : 1;  // rows begin at even and odd numbers
  constexpr bool kKnown = Plane::kInRows > 0;
  static_assert(sizeof(T) == 2 && K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1);
  static_assert(kConsumers % Tile::kWarps == 0 && !(kKnown && kBands));
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  const int page_bytes = cut.input_numbers * 2, result_bytes = cut.output_numbers * 2;
  char* const bytes = reinterpret_cast<char*>(shared) + cut.zeros * 2;
  const unsigned pages = shared_address(bytes);
  const unsigned full = pages + kPages * page_bytes + 2 * result_bytes, empty = full + 8 * kPages;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kRuns = kBands ? Tile::kImages * kPlanes : Tile::kImages;  // of an item
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s)
      make_barrier(full + 8 * s, kRuns), make_barrier(empty + 8 * s, kConsumers);
  }
  wait_for_stream();
  synchronize_block(kThreads);

  const int groups = (work.channels + kPlanes - 1) / kPlanes;  // of channels
  const int first_channel = number_of_block % groups * kPlanes;
  const int planes = min(kPlanes, work.channels - first_channel);
  const int part = number_of_block / groups;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_rows = kKnown ? Plane::kInRows : work.h.input,
            out_rows = kKnown ? Plane::kOutRows : work.h.output,
            padding = kKnown ? Plane::kPadding : work.h.padding;
  const int in_plane = in_rows * kIn, out_plane = out_rows * kOut, bands = kBands ? cut.bands : 1;
  using Item = RunItem<Tile::kImages>;
  struct Band {
    int row, rows, low, high;  ///< of y, and of x
  };
  const auto band_of = [&](const Item& item) {
    Band band;
    band.row = kBands ? item.band * cut.band_rows : 0;
    band.rows = kBands ? min(cut.band_rows, out_rows - band.row) : out_rows;
    const int low = band.row - padding, high = low + band.rows + K::kH - 1;
    band.low = kBands ? min(max(low, 0), in_rows) : 0;
    band.high = kBands ? max(min(high, in_rows), band.low) : in_rows;
    return band;
  };
  // Runs of a page: planes of an image, or a band of one plane. Some do not exist.
  const auto image_of = [&](int run) { return kBands ? run / kPlanes : run; };
  const auto plane_of = [&](int run) { return kBands ? run % kPlanes : 0; };
  const auto exists = [&](const Item& item, int run) {
    return run < kRuns && item.image + image_of(run) < cut.images && plane_of(run) < planes;
  };
  const auto plane_at = [&](const Item& item, int run) {
    return static_cast<Int64>(item.image + image_of(run)) * work.channels + first_channel + plane_of(run);
  };
  const auto input_of = [&](const Item& item, const Band& band, int run) {
    const T* const at = static_cast<const T*>(work.x) + plane_at(item, run) * in_plane + band.low * kIn;
    return at;
  };
  const auto output_of = [&](const Item& item, const Band& band, int run) {
    T* const at = static_cast<T*>(work.y) + plane_at(item, run) * out_plane + band.row * kOut;
    return at;
  };
  const auto numbers_of = [&](int rows, int width, int plane) {
    return kBands ? rows * width : planes * plane;
  };
  Item item{first_item / bands * Tile::kImages, first_item % bands};
  PageCursor<kPages> cursor;

  if (warp == kConsumers) {
    // A lane asks for one run.
#pragma unroll 1
    for (int i = first_item; lane < kRuns && i < last_item; ++i, item.advance(bands)) {
      const Band band = band_of(item);
      const unsigned barrier = full + 8 * cursor.slot;
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      if (exists(item, lane)) {
        const T* const run = input_of(item, band, lane);
        const RunBytes<T> of(run, numbers_of(band.high - band.low, kIn, in_plane));
        expect_bytes(barrier, of.loaded_bytes());
        of.load(pages + cursor.slot * page_bytes + lane * cut.run_numbers * 2, run, barrier);
      } else {
        arrive(barrier);
      }
      cursor.next();
    }
    return;
  }

  // The lane's window, of the second factor.
  const int window = Sizes::place_of(lane / 4, Sizes::kEvenFirst);
  const int window_group = window % kSpan, window_image = window / kSpan;
  const int sub = warp % Tile::kWarps, first_plane = warp / Tile::kWarps * Tile::kHeld;
  TapMatrices<T, K, Tile, Sizes::kProducts> taps[Tile::kHeld];
  float bias[Tile::kHeld];
  const auto shift_of = [&](int plane, int side) {
    const int rows_begin = ((first_channel + plane) & in_plane) + padding + side;  // odd or even
    return (work.w.padding + (kOddIn ? rows_begin : 0)) & 1;
  };
#pragma unroll
  for (int h = 0; h < Tile::kHeld; ++h) {
    const int plane = min(first_plane + h, planes - 1);
    const int shift[2] = {shift_of(plane, 0), shift_of(plane, kSides - 1)};
    taps[h].load(work.taps, first_channel + plane, shift);
    bias[h] = load_bias<T>(work.taps, first_channel + plane);
  }
  // What does not change with items: where the lane's window and results begin, but for the image, the band,
  // and where a run begins within sixteen bytes; which of the window's columns exist.
  struct Begin {
    unsigned first, step;  ///< numbers before a band, and from one image to the next; their last bits count
    __device__ __forceinline__ int phase(int image, int before) const {
      return static_cast<int>((first + static_cast<unsigned>(image) * step + static_cast<unsigned>(before)) %
                              kNumbers);
    }
  };
  const auto begin_of = [&](const void* data, int plane, int plane_numbers) {
    const unsigned numbers = static_cast<unsigned>(plane_numbers),
                   before = static_cast<unsigned>(first_channel + (kBands ? plane : 0));
    return Begin{static_cast<unsigned>(reinterpret_cast<unsigned long long>(data)) / 2 + before * numbers,
                 static_cast<unsigned>(work.channels) * numbers % kNumbers};
  };
  const auto find_masks = [&](int plane, int column, unsigned(&mask)[kSides][kPieces]) {
#pragma unroll
    for (int i = 0; i < kSides * kPieces; ++i) {
      const int at = column + lane % 4 * 2 - shift_of(plane, i / kPieces) + i % kPieces * 8;
      mask[i / kPieces][i % kPieces] =
          (at >= 0 && at < kIn ? 0xffffu : 0u) | (at + 1 >= 0 && at + 1 < kIn ? 0xffff0000u : 0u);
    }
  };
  constexpr int kPassColumns = kSpan * Tile::kColumns;
  // The second of the lane's tiles lies so many tiles, or images, beside the first.
  constexpr int kApart = Sizes::kEvenFirst ? 4 : 1, kBeside = kSpan > kApart ? kApart * Tile::kColumns : 0,
                kImagesApart = kSpan > kApart ? 0 : kApart / kSpan;
  const int window_column = window_group * Tile::kColumns - work.w.padding;
  const int tile = Sizes::place_of(lane % 4 * 2, Sizes::kEvenFirst), tile_image = tile / kSpan;
  const int my_row = Tile::row_of(lane / 4),
            my_column = tile % kSpan * Tile::kColumns + Tile::column_of(lane / 4);
  const int image_numbers = (kBands ? kPlanes : 1) * cut.run_numbers,
            image_results = (kBands ? kPlanes : 1) * cut.result_numbers;
  Begin x_begin[Tile::kHeld], y_begin[Tile::kHeld];
  int windows[Tile::kHeld][kSides], tiles[Tile::kHeld];
  unsigned first_masks[Tile::kHeld][kSides][kPieces];
#pragma unroll
  for (int h = 0; h < Tile::kHeld; ++h) {
    const int plane = first_plane + h;
    x_begin[h] = begin_of(work.x, plane, in_plane), y_begin[h] = begin_of(work.y, plane, out_plane);
#pragma unroll
    for (int side = 0; side < kSides; ++side)
      windows[h][side] = plane * (kBands ? cut.run_numbers : in_plane) + (side - padding) * kIn +
                         window_column + lane % 4 * 2 - shift_of(plane, side);
    tiles[h] = plane * (kBands ? cut.result_numbers : out_plane) + my_row * kOut + my_column;
    find_masks(plane, window_column, first_masks[h]);
    hold(tiles[h]), hold(x_begin[h].first), hold(y_begin[h].first);
#pragma unroll
    for (int side = 0; side < kSides; ++side) {
      hold(windows[h][side]);
#pragma unroll
      for (int p = 0; p < kPieces; ++p) hold(first_masks[h][side][p]);
    }
  }
  // Of an item, where that is less than a product's; a clamped one is not stored.
  const auto image_in_item = [](int image) {
    return Tile::kImages < kTogether ? min(image, Tile::kImages - 1) : image;
  };

  // Whether all runs of y are whole in sixteen bytes.
  const auto plane_numbers = static_cast<unsigned>(out_plane);
  const unsigned odd_numbers = kBands ? plane_numbers | static_cast<unsigned>(cut.band_rows * kOut)
                                      : static_cast<unsigned>(first_channel) * plane_numbers |
                                            static_cast<unsigned>(planes) * plane_numbers | y_begin[0].step;
  const bool is_whole = reinterpret_cast<unsigned long long>(work.y) % 16 == 0 && odd_numbers % kNumbers == 0;
  const int thread = static_cast<int>(threadIdx.x);
  const int strip_rows = kKnown ? out_rows : cut.strip_rows, strips = kKnown ? 1 : cut.row_groups;
  int result = 0;
#pragma unroll 1
  for (int i = first_item; i < last_item; ++i, item.advance(bands)) {
    const Band band = band_of(item);
    const int results_at = kPages * page_bytes + result * result_bytes;
    wait_for_phase(full + 8 * cursor.slot, cursor.parity);
    int page_at = cursor.slot * page_bytes;
    hold(page_at);
    const int images = min(Tile::kImages, cut.images - item.image), page_rows = band.high - band.low;
#pragma unroll
    for (int h = 0; h < Tile::kHeld; ++h) {
      const int plane = first_plane + h;
#pragma unroll 1
      for (int unit = sub; plane < planes && unit < strips * Sizes::kPasses * Sizes::kImageGroups;
           unit += Tile::kWarps) {
        const int pass = unit % Sizes::kPasses;
        const int image = unit / Sizes::kPasses % Sizes::kImageGroups * kTogether;
        const int first_row = kKnown ? 0 : unit / (Sizes::kPasses * Sizes::kImageGroups) * strip_rows;
        const int last_row = kKnown ? out_rows : min(band.rows, first_row + strip_rows);
        if (image >= images || first_row >= last_row) continue;

        const int from_image = image_in_item(image + window_image);
        const int first_page_row = first_row + band.row - padding - band.low;
        const int begin = from_image * image_numbers + pass * kPassColumns +
                          (first_row + band.row - band.low) * kIn +
                          x_begin[h].phase(item.image + from_image, band.low * kIn);
        int from[kSides];  // in shared memory
        unsigned mask[kSides][kPieces];
        if constexpr (Sizes::kPasses > 1) find_masks(plane, window_column + pass * kPassColumns, mask);
#pragma unroll
        for (int side = 0; side < kSides; ++side) {
          from[side] = page_at + (windows[h][side] + begin) * 2;
#pragma unroll
          for (int p = 0; Sizes::kPasses == 1 && p < kPieces; ++p) mask[side][p] = first_masks[h][side][p];
        }
        unsigned x[kWindowRows][kPieces];
        const auto load_row = [&](unsigned(&to)[kPieces], int row) {
          const char* const at = bytes + from[row % kSides] + row / kSides * kSides * kIn * 2;
#pragma unroll
          for (int p = 0; p < kPieces; ++p)
            to[p] = reinterpret_cast<const unsigned*>(at)[4 * p] & mask[row % kSides][p];
        };
        const auto load_or_clear = [&](unsigned(&to)[kPieces], int page_row, int row) {
          if (page_row + row >= 0 && page_row + row < page_rows) {
            load_row(to, row);
          } else {
#pragma unroll
            for (int p = 0; p < kPieces; ++p) to[p] = 0;
          }
        };
#pragma unroll
        for (int r = 0; r < kWindowRows; ++r) load_or_clear(x[r], first_page_row, r);

        int to[2];       // in shared memory
        int last[2][2];  // behind the last row that is stored, of each number of a pair
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int into_image = image + tile_image + n * kImagesApart,
                    into_column = pass * kPassColumns + my_column + n * kBeside;
          const int at = image_in_item(into_image);
          if (n == 0 || kImagesApart > 0)
            to[n] = results_at + (at * image_results + tiles[h] + pass * kPassColumns + first_row * kOut +
                                  y_begin[h].phase(item.image + at, band.row * kOut)) *
                                     2;
          else
            to[n] = to[0] + kBeside * 2;
          hold(to[n]);
          const bool has_image = Tile::kImages >= kTogether || into_image < Tile::kImages;
#pragma unroll
          for (int j = 0; j < 2; ++j)
            last[n][j] = has_image && into_column + j < kOut ? last_row - my_row : 0;
        }
        const auto step = [&](int row, int turn) {
          const auto half = [&](int number) {
            const int window_row = number / kPieces;
            return window_row < kWindowRows ? x[(turn * kRows + window_row) % kWindowRows][number % kPieces]
                                            : 0u;
          };
          // A long chain of products, each of which waits for the one before, is cut in two.
          constexpr int kChains = Sizes::kProducts >= 6 ? 2 : 1;
          float sums[4] = {bias[h], bias[h], bias[h], bias[h]}, others[4] = {0, 0, 0, 0};
#pragma unroll
          for (int k = 0; k < Sizes::kProducts; ++k) {
            const unsigned(&a)[4] = taps[h].word[k];
            multiply_add(k % kChains == 0 ? sums : others, a[0], a[1], a[2], a[3], half(2 * k),
                         half(2 * k + 1), T{});
          }
          // The next rows come while these are multiplied.
          constexpr int kKept = kWindowRows - kRows;
          const int page_row = first_page_row + row - first_row + kRows;
#pragma unroll
          for (int side = 0; side < kSides; ++side) from[side] += kRows * kIn * 2;
          if (page_row + kKept >= 0 && page_row + kWindowRows <= page_rows) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) load_row(x[(turn * kRows + r) % kWindowRows], kKept + r);
          } else if (row + kRows < last_row) {
#pragma unroll
            for (int r = 0; r < kRows; ++r)
              load_or_clear(x[(turn * kRows + r) % kWindowRows], page_row, kKept + r);
          }
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            const unsigned pair = kChains > 1
                                      ? narrow_pair(sums[n] + others[n], sums[2 + n] + others[2 + n], T{})
                                      : narrow_pair(sums[n], sums[2 + n], T{});
            const auto is_kept = [&](int j) {
              return kKnown && row + kRows <= last_row ? last[n][j] > 0 : row < last[n][j];
            };
            T* const at = reinterpret_cast<T*>(bytes + to[n]);
            if constexpr (kOddOut) {
              if (is_kept(0)) at[0] = {static_cast<unsigned short>(pair)};
              if (is_kept(1)) at[1] = {static_cast<unsigned short>(pair >> 16)};
            } else {
              if (is_kept(0)) *reinterpret_cast<unsigned*>(at) = pair;
            }
            to[n] += kRows * kOut * 2;
          }
        };
        if constexpr (kKnown) {
#pragma unroll
          for (int turn = 0; turn * kRows < Plane::kOutRows; ++turn) step(turn * kRows, turn);
        } else {
#pragma unroll 1
          for (int row = first_row; row < last_row;) {
#pragma unroll
            for (int turn = 0; turn < Sizes::kTurns; ++turn) {
              if (row >= last_row) break;
              step(row, turn);
              row += kRows;
            }
          }
        }
      }
    }
    hand_to_copy_engine();
    if (warp == 0) wait_until_stores_have_read();  // the other place for results is free
    synchronize_warp();
    if (lane == 0) arrive(empty + 8 * cursor.slot);
    cursor.next();
    synchronize_some(1, kWorkers);
    const int out_numbers = numbers_of(band.rows, kOut, out_plane);
    if (warp == 0 && exists(item, lane)) {
      T* const out = output_of(item, band, lane);
      const RunBytes<T> of(out, out_numbers);
      if (of.whole > of.begin) {
        store_bytes(out - of.phase + of.begin,
                    pages + kPages * page_bytes + result * result_bytes +
                        static_cast<unsigned>((lane * cut.result_numbers + of.begin) * 2),
                    static_cast<unsigned>((of.whole - of.begin) * 2));
        end_stores();
      }
    }
    // What does not fill sixteen bytes, at the beginning and at the end.
#pragma unroll 1
    for (int run = thread / kNumbers; !is_whole && run < kRuns; run += kWorkers / kNumbers) {
      if (!exists(item, run)) continue;
      T* const out = output_of(item, band, run);
      const T* const from = reinterpret_cast<const T*>(bytes + results_at) + run * cut.result_numbers;
      const RunBytes<T> of(out, out_numbers);
      const int number = thread % kNumbers, head = of.phase + number, tail = max(of.whole, of.begin) + number;
      if (head < min(of.begin, of.end)) out[number] = from[head];
      if (tail < of.end) out[tail - of.phase] = from[tail];
    }
    result ^= 1;
  }
  if (warp == 0) wait_until_stores_have_read();
}

template <class T, class K, class Plane, class Tile, bool kBands, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) forward_matrices(const PlaneWork work) {
  multiply_matrices<T, K, Plane, Tile, kBands, kThreads>(work, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
