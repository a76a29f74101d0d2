#pragma once

#include "pixels.cuh"

/// Channels side by side (NHWC), sixteen-bit numbers, by the matrix units, from boxes that the copy engine
/// moves: for GPUs of compute capability 9 and on.
///
/// For one tap and eight channels,
///   y [16 pixels][8 channels] += x [16 shifted pixels][8 channels] · diagonal matrix of the channels' taps,
/// and two taps make one product of depth 16. Of the weight gradient,
///   [8 channels of two shifts of g][16 pixels] · x [16 pixels][8 channels],
/// the diagonals of both halves are the sums for two taps; of an odd number of shifts the last one's are of
/// two rows. Of two outputs a channel g has sixteen channels for eight of x, in place of two shifts. Seven
/// eighths of the products are with zeros, or not wanted; they cost little more than the useful ones would on
/// the other units, and far fewer instructions.
///
/// Numbers that are not finite spread to the other channels of their eight, as 0 · infinity is no number.
///
/// A block has some channels of a tile of columns and walks down strips of rows, one item after the other.
/// One warp of it asks for pages of rows ahead; the others compute. All places in shared memory are known
/// when the kernel is compiled.
namespace lamella::depthwise {

/// Where the copy engine puts pixels of so many channels of sixteen bits; kByRows_: it moves whole rows
/// (BoxMove).
template <int kOfPixel, bool kByRows_ = false>
struct SwizzledPixels {
  static constexpr bool kByRows = kByRows_;
  static constexpr int kPixelBytes = kOfPixel * 2, kChunks = kOfPixel / 8;
  static constexpr bool kSwizzled = !kByRows_ && (kOfPixel == 16 || kOfPixel == 32 || kOfPixel == 64);
  static_assert(kSwizzled || (kOfPixel % 8 == 0 && (kByRows_ || kChunks % 2 == 1)));

  /// Chunk `chunk`, of eight channels, of pixel number `pixel` of a box. Where a pixel has 2, 4 or 8 chunks
  /// the copy engine exchanges them by its place, so that eight neighbours lie in different banks (swizzle of
  /// 128, 64 or 32 bytes); an odd number does so as it is; by rows, an even number does not.
  __device__ static constexpr unsigned at(int pixel, int chunk) {
    const int place = kSwizzled ? chunk ^ (pixel * kPixelBytes >> 7 & (kChunks - 1)) : chunk;
    return static_cast<unsigned>(pixel * kPixelBytes + (place << 4));
  }
  __host__ __device__ static constexpr int box_bytes(int pixels) {
    return (pixels * kPixelBytes + 1023) / 1024 * 1024;
  }
};

/// What a kernel is made of. Sixteen pixels of a product are kColumns_ (8 or 16) neighbours of one or two
/// rows; a step of a warp is kRows_ of them, one below the other. kBlocks_ of them are side by side. A block
/// has kChannels_ of x, a warp kWarpChannels_ (8 or 16). kTapRows_ < kH: that many rows of taps at a time
/// (forward), or of a warp (weight gradient). kPages_ pages are in shared memory, each the rows of a step;
/// kWhole_: with all that the step reads, one to an item.
///
/// kBoxColumns_: columns of the boxes that are read with the taps' reach; 0: as many as the columns of the
/// block need. Fewer do where a map is narrower. What lies behind them is read from the first ones, and is
/// either of no use or zero in both places: padding.
///
/// kImages_ > 1: an item is as many images of a small map, and a page has all of them, so that they share
/// what an item costs besides its data. Then kBlocks_ share out the images of the page, and are not side by
/// side.
///
/// kByRows_: a block has all channels, so that what it reads of a row, or writes, lies in memory without
/// gaps, and is moved so (BoxMove).
template <int kColumns_, int kBlocks_, int kRows_, int kChannels_, int kWarpChannels_, int kTapRows_,
          int kPages_, bool kWhole_, int kBoxColumns_ = 0, int kImages_ = 1, bool kByRows_ = false>
struct BoxTile : SwizzledPixels<kChannels_, kByRows_> {
  static constexpr int kColumns = kColumns_, kBlocks = kBlocks_, kRows = kRows_, kChannels = kChannels_;
  static constexpr int kWarpChannels = kWarpChannels_, kTapRows = kTapRows_, kPages = kPages_;
  static constexpr bool kWhole = kWhole_;
  static constexpr int kBoxColumns = kBoxColumns_, kImages = kImages_;
  static constexpr int kDown = 16 / kColumns;  ///< rows of a product
  static constexpr int kStepRows = kRows * kDown;
  static constexpr int kUnits = (kImages > 1 ? 1 : kBlocks) * kColumns;     ///< columns of a block
  static constexpr int kBlockImages = kImages > 1 ? kImages / kBlocks : 1;  ///< images of one of kBlocks
  static constexpr int kEights = kWarpChannels / 8, kWarpGroups = kChannels / kWarpChannels;
  static_assert(kColumns == 8 || kColumns == 16);
  static_assert((kWarpChannels == 8 || kWarpChannels == 16) && kChannels % kWarpChannels == 0);
  static_assert(kBoxColumns % 8 == 0);
  static_assert(kImages == 1 || (kWhole && kImages % kBlocks == 0));

  /// Columns of a box from which the block's are read with `reach` more.
  __host__ __device__ static constexpr int box_columns(int reach) {
    return kBoxColumns > 0 ? kBoxColumns : (kUnits + reach + 7) / 8 * 8;
  }
  /// Columns that boxes by rows begin before their first one (of class and tile 0), as far as there is room,
  /// to begin with a line or a sector of memory: a copy that begins within a sector is slow.
  __device__ __forceinline__ static int lead_of(int first_column, int reach) {
    if (!kByRows_ || kBoxColumns > 0) return 0;
#pragma unroll
    for (int unit = 8; unit > 1; unit /= 2) {
      const int lead = first_column & (unit - 1);
      if (kUnits + reach + lead <= box_columns(reach)) return lead;
    }
    return 0;
  }
  /// Where column `column` lies in its row of such a box. Eight neighbours stay in different banks.
  __device__ static constexpr int in_box(int column) {
    return kBoxColumns == 0 || column < kBoxColumns ? column : column % 8;
  }
  /// The first column, and the first of a page's images, of one of kBlocks.
  __device__ static constexpr int column_of(int block) { return kImages > 1 ? 0 : block * kColumns; }
  __device__ static constexpr int image_of(int block) { return kImages > 1 ? block * kBlockImages : 0; }
  /// How many images of an item a block has that exist.
  __device__ __forceinline__ static int images_of(const PixelCut& cut, int first_image) {
    return kImages > 1 ? max(min(kBlockImages, cut.images - first_image), 0) : 1;
  }
};

/// How the copy engine moves kColumns columns of kRows rows of kImages images: as one box or, of Pixels with
/// kByRows, each row in pieces of memory without gaps. Pixels of 144 bytes, say, share every ninth sector,
/// which a box reads twice and a row once. Where pieces do not divide a row the last one begins earlier, and
/// moves some bytes once more.
template <class Pixels, int kColumns, int kRows, int kImages>
struct BoxMove {
  static constexpr int kRowBytes = kColumns * Pixels::kPixelBytes;
  static constexpr int kPieceBytes = row_piece_bytes(kRowBytes),
                       kPieces = (kRowBytes + kPieceBytes - 1) / kPieceBytes;
  static constexpr int kBytes =
      kImages * kRows * (Pixels::kByRows ? kPieces * kPieceBytes : kRowBytes);  ///< that arrive
  static_assert(!Pixels::kByRows || kRowBytes % kLineBytes == 0);

  __device__ __forceinline__ static void load(unsigned to, const TensorMap& map, int channel, int column,
                                              int row, int image, unsigned barrier) {
    if constexpr (Pixels::kByRows) {
      each_piece([&](int n, int r, int from) {
        load_box(to + (n * kRows + r) * kRowBytes + from, map, row_place(column, from), 0, row + r, image + n,
                 barrier);
      });
    } else {
      load_box(to, map, channel, column, row, image, barrier);
    }
  }
  /// columns, rows, images: of the tensor. By rows `channel` is zero, here and above.
  __device__ __forceinline__ static void store(const TensorMap& map, unsigned from, int channel, int column,
                                               int row, int image, int columns, int rows, int images) {
    if constexpr (Pixels::kByRows) {
      each_piece([&](int n, int r, int at) {
        // A store that begins outside its tensor ends the kernel.
        const int place = row_place(column, at);
        if (place < row_place(columns, 0) && row + r < rows && image + n < images)
          store_box(map, from + (n * kRows + r) * kRowBytes + at, place, 0, row + r, image + n);
      });
    } else {
      store_box(map, from, channel, column, row, image);
    }
  }

 private:
  /// In units of pieces.
  __device__ __forceinline__ static int row_place(int column, int byte) {
    return column * (Pixels::kPixelBytes / kPieceUnit) + byte / kPieceUnit;
  }
  template <class Use>
  __device__ __forceinline__ static void each_piece(const Use& use) {
#pragma unroll 1
    for (int n = 0; n < kImages; ++n)
#pragma unroll 1
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int p = 0; p < kPieces; ++p)
          use(n, r, p + 1 < kPieces ? p * kPieceBytes : kRowBytes - kPieceBytes);
  }
};

/// Blocks that have the same channels. Each takes every so many-th item, so that what runs at one time lies
/// side by side: neighbours share pixels, which the second-level cache then still has.
__device__ __forceinline__ int parts_of(const PixelWork& work) {
  return (work.items + work.items_per_part - 1) / work.items_per_part;
}

/// Which channels a block has, of which items: from `first` to before `last`, every step-th.
struct BoxShare {
  int first_channel, part, first, last, step;

  /// Of block `number`. kInRow: its items are neighbours, else those of parts_of().
  template <class Tile, bool kInRow>
  __device__ __forceinline__ static BoxShare of(const PixelWork& work, unsigned number) {
    const unsigned channel_blocks = static_cast<unsigned>(work.cut.channel_blocks);
    BoxShare share;
    share.first_channel = static_cast<int>(number % channel_blocks) * Tile::kChannels;
    share.part = static_cast<int>(number / channel_blocks);
    share.first = kInRow ? share.part * work.items_per_part : share.part;
    share.last = kInRow ? min(work.items, share.first + work.items_per_part) : work.items;
    share.step = kInRow ? 1 : parts_of(work);
    return share;
  }
};

/// An item; of several images, the first.
template <class Tile>
__device__ __forceinline__ PixelItem box_item(const PixelWork& work, int number) {
  if constexpr (Tile::kImages > 1) {
    // Mostly an item has all of its images: nothing to divide.
    if (work.items == (work.cut.images + Tile::kImages - 1) / Tile::kImages)
      return PixelItem(number * Tile::kImages);
  }
  PixelItem item(work, static_cast<unsigned>(number));
  item.image *= Tile::kImages;
  return item;
}

/// Steps of an item of a forward.
template <class Tile>
__device__ __forceinline__ int steps_of(const PixelWork& work, const PixelItem& at) {
  const int rows = min(work.cut.strip_rows, work.h.outputs(at.class_h) - at.strip * work.cut.strip_rows);
  if (rows <= 0 || at.tile * Tile::kUnits >= work.w.outputs(at.class_w)) return 0;
  return (rows + Tile::kStepRows - 1) / Tile::kStepRows;
}

/// A page of an item: where it begins, and how many of the item there are from it on.
struct PagePlace {
  int item = 0, left = 0, column = 0, row = 0, image = 0;
};
/// The pages of x of some items of a forward, one after the other; a step goes on by kAdvance of them.
template <class K, class Tile, class Sizes, int kAdvance = 1>
struct PageWalk {
  const PixelWork& work;
  const BoxShare& share;
  PagePlace at;

  __device__ __forceinline__ PageWalk(const PixelWork& of, const BoxShare& block) : work(of), share(block) {}
  __device__ __forceinline__ void begin() {
    at.item = share.first;
    find_pages();
  }
  __device__ __forceinline__ bool has() const { return at.item < share.last; }
  __device__ __forceinline__ void next() {
    at.row += Sizes::kPageRows * work.h.input_step;
    if (--at.left > 0) return;
    at.item += share.step;
    find_pages();
  }

 private:
  __device__ __forceinline__ void find_pages() {
#pragma unroll 1
    for (; at.item < share.last; at.item += share.step) {
      const PixelItem item = box_item<Tile>(work, at.item);
      const int steps = steps_of<Tile>(work, item);
      if (steps == 0) continue;
      const int strip_inputs = work.cut.strip_rows * K::kStrideH * work.h.input_step;
      at.row = work.h.origin(item.class_h) + item.strip * strip_inputs;
      at.column = work.w.origin(item.class_w) + item.tile * Tile::kUnits * K::kStrideW * work.w.input_step;
      at.image = item.image, at.left = (steps - 1) * kAdvance + Sizes::kReach;
      return;
    }
  }
};
/// use(first column, first row, image) for each of them.
template <class K, class Tile, class Sizes, int kAdvance = 1, class Use>
__device__ __forceinline__ void each_page(const PixelWork& work, const BoxShare& share, const Use& use) {
  PageWalk<K, Tile, Sizes, kAdvance> walk(work, share);
#pragma unroll 1
  for (walk.begin(); walk.has(); walk.next()) use(walk.at.column, walk.at.row, walk.at.image);
}

/// One end of a ring of pages: which comes next, and the phase of its barriers.
template <int kPages>
struct PageCursor {
  int slot = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kPages) slot = 0, parity ^= 1;
  }
};

/// Sixteen pixels of eight or sixteen channels, in pairs as the lanes have them, to a box; `row`: the lane's
/// place as of store_matrices().
template <int kEights>
__device__ __forceinline__ void store_pairs(const unsigned (&pairs)[kEights][2], unsigned row) {
  if constexpr (kEights == 1)
    store_matrices(row, pairs[0][0], pairs[0][1]);
  else
    store_matrices(row, pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1]);
}
/// A lane's sums of a product, in pairs.
template <class T, int kEights>
__device__ __forceinline__ void narrow_sums(const float (&sums)[kEights][4], unsigned (&pairs)[kEights][2]) {
#pragma unroll
  for (int e = 0; e < kEights; ++e)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      pairs[e][half] = narrow_pair(sums[e][2 * half], sums[e][2 * half + 1], T{});
}

/// The second factors of products for taps: a lane has pairs of numbers, most of them zero. Of eight channels
/// of x from `channel` on, for so many rows of taps from `first_row` on. Of two outputs a channel a product's
/// depth is sixteen channels of g, which meet the same tap.
template <class T, class K, int kTapRows>
struct TapRows {
  unsigned tap[K::kRepeat][kTapRows * K::kW];  ///< of two outputs the halves of the depth

  __device__ void load(const Parameters& parameters, int channel, int channels, int first_row) {
    constexpr int kRepeat = K::kRepeat;
    const int lane = static_cast<int>(threadIdx.x) % 32, column = lane / 4, mine = channel + column;
    const bool has = (kRepeat == 1 ? column / 2 : column % 4) == lane % 4 && mine < channels;
#pragma unroll
    for (int k = 0; k < kTapRows * K::kW; ++k) {
      const int of = first_row * K::kW + k;
      const bool exists = has && (kTapRows == K::kH || of < K::kTaps);
      unsigned bits[kRepeat];
#pragma unroll
      for (int m = 0; m < kRepeat; ++m) {
        const Int64 at = (static_cast<Int64>(mine) * kRepeat + m) * K::kTaps;
        const float number = exists ? load_parameter<T>(parameters.taps, parameters.taps_are_float32,
                                                        at + (parameters.turned ? K::kTaps - 1 - of : of))
                                    : 0.0f;
        bits[m] = static_cast<unsigned>(narrow<T>(number).bits);
      }
      if constexpr (kRepeat == 1) {
        tap[0][k] = bits[0] << column % 2 * 16;
      } else {
        const unsigned pair = bits[0] | bits[kRepeat - 1] << 16;
#pragma unroll
        for (int half = 0; half < 2; ++half) tap[half % kRepeat][k] = column / 4 == half ? pair : 0;
      }
    }
  }
};

/// Where a lane finds what it loads, from the beginning of a row of a page on: pairs of neighbouring shifts
/// of eight channels, and the last of an odd number of shifts. Of kRepeat = 2 each shift is a pair by itself,
/// of the sixteen channels that belong to eight.
template <class Tile, int kShifts, int kRepeat = 1>
struct ShiftPlaces {
  static constexpr int kPairs = kShifts * kRepeat / 2;
  static constexpr bool kOdd = kShifts * kRepeat % 2 == 1;
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
      for (int p = 0; p < kPairs; ++p)
        pair[p][e] = kRepeat == 1 ? place(pixel, 2 * p + second, chunk + e)
                                  : place(pixel, p, (chunk + e) * kRepeat + second);
    // Not transposed: sixteen channels at once. Transposed: each eight with the same shift twice.
    last = kTransposed ? place(pixel, kShifts - 1, chunk)
                       : place(lane % 16, kShifts - 1, chunk + (Tile::kEights > 1 ? lane / 16 : 0));
  }
};

/// The axes of a box: its first row and column in the tensor, their distances, and the sizes of the tensor.
struct BoxAxes {
  int row, row_step, rows, column, column_step, columns;
};

/// Passes the numbers of a box through a transform where they lie, by kWarps warps that do nothing else. What
/// is outside the tensor stays zero. A thread has the same eight channels always.
template <class T, class Tile, int kWarps, int kTransforms>
struct BoxTransform {
  static constexpr int kAtOnce = 32 / Tile::kChunks;  ///< pixels of a warp; lanes that are left have none

  VectorTransform<T, 8, kTransforms> vector;
  int warp, chunk, pixel;

  __device__ __forceinline__ void begin(const Transform& transform, int thread, int first_channel,
                                        int channels) {
    constexpr int kNone = 1 << 20;
    const int lane = thread % 32;
    warp = thread / 32, chunk = lane % Tile::kChunks;
    pixel = lane < kAtOnce * Tile::kChunks ? lane / Tile::kChunks : kNone;
    vector.begin(transform, first_channel + chunk * 8, channels);
  }
  /// `images`: how many of the box's exist.
  template <int kRows, int kColumns>
  __device__ __forceinline__ void apply(uint4* box, const BoxAxes& axes, int images) const {
    constexpr int kBatch = Tile::kImages == 2 ? 2 : 4;
    const int first_row = first_inside(axes.row, axes.row_step),
              first_column = first_inside(axes.column, axes.column_step);
    const int last_row = min(kRows, first_inside(axes.row - axes.rows, axes.row_step)),
              last_column = min(kColumns, first_inside(axes.column - axes.columns, axes.column_step));
    if constexpr (Tile::kImages > 1) {
      // Maps are narrow: neighbours that are transformed at once are of several images.
      constexpr int kImageWords = kRows * kColumns * Tile::kPixelBytes / 16;
#pragma unroll 1
      for (int image = 0; image < images; image += kBatch)
#pragma unroll 1
        for (int row = first_row + warp; row < last_row; row += kWarps)
#pragma unroll 1
          for (int column = first_column + pixel; column < last_column; column += kAtOnce) {
            uint4* const first = box + image * kImageWords + Tile::at(row * kColumns + column, chunk) / 16;
            Words<16> x[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; ++i)
              if (image + i < images) x[i] = load_words<16>(first + i * kImageWords);
#pragma unroll
            for (int i = 0; i < kBatch; ++i)
              if (image + i < images) keep_words(first + i * kImageWords, vector.apply(x[i]));
          }
    } else {
#pragma unroll 1
      for (int row = first_row + warp; row < last_row; row += kWarps)
#pragma unroll 1
        for (int column = first_column + pixel; column < last_column; column += kBatch * kAtOnce) {
          uint4* at[kBatch];
          Words<16> x[kBatch];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            at[i] = box + Tile::at(row * kColumns + column + i * kAtOnce, chunk) / 16;
            if (column + i * kAtOnce < last_column) x[i] = load_words<16>(at[i]);
          }
#pragma unroll
          for (int i = 0; i < kBatch; ++i)
            if (column + i * kAtOnce < last_column) keep_words(at[i], vector.apply(x[i]));
        }
    }
  }

 private:
  /// The first i at which from + i · step is not negative.
  __device__ __forceinline__ static int first_inside(int from, int step) {
    if (from >= 0) return 0;
    return step == 1 ? -from : (step - 1 - from) / step;
  }
};

}  // namespace lamella::depthwise
