#pragma once

#include "point_primitives.cuh"
#include "point_work.cuh"

/// Boxes in shared memory, and rings of pages that hold them.
namespace lamella::pointwise {

// NOLINTNEXTLINE(google-build-using-namespace): the machine's primitives, as if they were this folder's
using namespace depthwise;

__host__ __device__ constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int larger(int a, int b) { return a > b ? a : b; }

/// Rows of kChannels (16, 32 or 64) sixteen-bit numbers as the copy engine lays them out: it exchanges the
/// chunks of eight numbers of a row by the row's place, so that eight neighbouring rows' chunks of one number
/// lie in different banks (swizzle of 32, 64 or 128 bytes).
///
/// kFolded: of a matrix that has no more channels than the box, so that its rows are one run of memory. It is
/// moved as one of lines of 64 numbers, kFold rows to a line: the engine moves whole lines of 128 bytes.
template <int kChannels_, bool kFolded = false>
struct Box {
  static constexpr int kChannels = kChannels_, kRowBytes = kChannels * 2, kChunks = kChannels / 8;
  static constexpr int kFold = kFolded ? 64 / kChannels : 1;
  static constexpr int kSteps = kChannels / 16;  ///< products of depth 16
  static_assert(kChannels == 16 || kChannels == 32 || kChannels == 64);

  __host__ __device__ static constexpr int bytes(int rows) { return (rows * kRowBytes + 1023) / 1024 * 1024; }
  __device__ static constexpr unsigned at(int row, int chunk) {
    const int place = row * kRowBytes + (chunk << 4), exchanged = kFolded ? 7 : kChunks - 1;
    return static_cast<unsigned>(place ^ (row * kRowBytes >> 7 & exchanged) << 4);
  }
  /// So many times sixteen rows and `pair` pairs of chunks further than a place whose pair is 0: chunks are
  /// exchanged bit by bit, and in the same way every sixteen rows, or every 32 where those are eight lines.
  __device__ static constexpr unsigned moved(unsigned place, int sixteens, int pair) {
    const int flipped = kFolded && kChannels == 16 ? sixteens % 2 << 6 : 0;
    return (place ^ static_cast<unsigned>(pair << 5 ^ flipped)) +
           static_cast<unsigned>(sixteens * 16 * kRowBytes);
  }

  // Which of sixteen rows and two chunks a lane has the address of, for four matrices of 8x8.

  /// Matrices of rows 0 to 7, of rows 8 to 15, and the same of the next chunk.
  __device__ static unsigned rows_first() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return at(lane % 16, lane / 16);
  }
  /// Matrices of the two chunks of rows 0 to 7, then of rows 8 to 15.
  __device__ static unsigned chunks_first() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return at(lane % 8 + lane / 16 * 8, lane / 8 % 2);
  }
};

/// One end of a ring of pages: which comes next, and the phase of its barriers.
template <int kPages>
struct RingEnd {
  int slot = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kPages) slot = 0, parity ^= 1;
  }
};

/// Two barriers for each page: one that ends when its bytes have come, one when all have read them.
template <int kPages>
struct RingBarriers {
  static constexpr int kBytes = 16 * kPages;
  unsigned full, empty;

  __device__ explicit RingBarriers(unsigned at) : full(at), empty(at + 8 * kPages) {}
  /// By one thread.
  __device__ void make(int readers) const {
    for (int s = 0; s < kPages; ++s)
      make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, static_cast<unsigned>(readers));
  }
  __device__ __forceinline__ void wait_full(const RingEnd<kPages>& end) const {
    wait_for_phase(full + 8 * end.slot, end.parity);
  }
  /// Before anything was read a page is empty.
  __device__ __forceinline__ void wait_empty(const RingEnd<kPages>& end) const {
    wait_for_phase(empty + 8 * end.slot, end.parity ^ 1);
  }
  /// Of a warp that has read the page.
  __device__ __forceinline__ void release(const RingEnd<kPages>& end) const {
    synchronize_warp();
    if (threadIdx.x % 32 == 0) arrive(empty + 8 * end.slot);
  }
};

/// A box of rows from `row` and channels from `channel` on, of a matrix.
template <class Box>
__device__ __forceinline__ void load_rows(unsigned to, const TensorMap& map, int channel, int row,
                                          unsigned barrier) {
  load_box(to, map, channel, row / Box::kFold, 0, 0, barrier);
}

}  // namespace lamella::pointwise
