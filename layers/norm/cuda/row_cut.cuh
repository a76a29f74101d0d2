#pragma once

#include <numeric>

#include "layers/norm/cuda/finish.cuh"

namespace lamella::cuda {

/// Pieces of work that keep a GPU busy, whichever it is: the cut must not depend on that.
inline constexpr std::int64_t kWantedBlocks = 768;
/// Of rows: what runs at one time on the largest GPUs. More parts would have more to add up behind them.
inline constexpr std::int64_t kWantedRowBlocks = 384;

/// Packets for a thread where there are `packets` for `threads` times the wanted pieces: whole batches.
inline std::int64_t packets_of_thread(std::int64_t packets, std::int64_t threads, std::int64_t pieces,
                                      std::int64_t wanted = kWantedBlocks) {
  const std::int64_t at_once = std::max<std::int64_t>(1, wanted / std::max<std::int64_t>(1, pieces));
  const std::int64_t each = (packets + at_once * threads - 1) / (at_once * threads);
  return std::clamp<std::int64_t>((each + kBatch - 1) / kBatch * kBatch, 2 * kBatch, kRun);
}

/// The work over dense rows of `lanes` numbers, of which `each` neighbours belong to one channel. A block
/// takes a part of the rows and a tile of the lanes, `down` rows of `across` packets at a time. All of a
/// tile's channels are whole.
struct RowCut {
  RowCut() = default;
  RowCut(std::int64_t segments, std::int64_t rows, std::int64_t channels, std::int64_t each, int packet_size)
      : segments(segments), rows(rows), channels(channels), lanes(channels * each) {
    constexpr std::int64_t kMostAcross = 32;
    const std::int64_t packets = (lanes + packet_size - 1) / packet_size;
    const std::int64_t unit = each / std::gcd<std::int64_t>(each, packet_size);
    const std::int64_t units = (packets + unit - 1) / unit,
                       most = std::max<std::int64_t>(1, kMostAcross / unit);
    tiles = std::max<std::int64_t>(1, (units + most - 1) / most);
    across = static_cast<unsigned>(std::max<std::int64_t>(1, (units + tiles - 1) / tiles) * unit);
    down = kNormThreads / across;
    const unsigned tile_lanes = across * static_cast<unsigned>(packet_size);
    split = std::clamp(kNormThreads / tile_lanes, 1u, down);
    this->each = static_cast<unsigned>(each);
    while (merging < 32 && merging < each) merging *= 2;
    cut_rows(packets_of_thread(rows, down, tiles * segments, kWantedRowBlocks));
  }
  /// The same where no sums are left, so that parts cost nothing: a batch a thread, if that makes enough of
  /// them.
  RowCut for_writing() const {
    constexpr std::int64_t kMany = 2048;
    RowCut cut = *this;
    cut.cut_rows(kBatch);
    return cut.blocks() >= kMany ? cut : *this;
  }
  PartCounts counts() const { return {parts, length, rows, each, 1, static_cast<int>(each)}; }
  std::int64_t blocks() const { return segments * parts * tiles; }

  std::int64_t segments = 0, rows = 0, channels = 0, lanes = 0;
  std::int64_t tiles = 1;
  std::int64_t length = 1, parts = 0;  ///< rows of a part; parts of a segment
  unsigned each = 1, across = 1, down = 1;
  unsigned split = 1;    ///< threads that add up one lane's rows
  unsigned merging = 1;  ///< threads that add up one channel's lanes: a power of two

 private:
  void cut_rows(std::int64_t of_thread) {
    length = of_thread * down;
    parts = (rows + length - 1) / length;
  }
};

/// What a thread does of block number `block`.
template <int kSize>
struct RowItem {
  __device__ RowItem(const RowCut& cut, std::int64_t block) {
    const std::int64_t whole = block / cut.tiles;
    tile = block - whole * cut.tiles;
    segment = whole / cut.parts;
    part = whole - segment * cut.parts;
    const std::int64_t first = part * cut.length;
    rows = static_cast<unsigned>(min(cut.length, cut.rows - first));
    down = cut.down;
    const unsigned y = threadIdx.x / cut.across, x = threadIdx.x - y * cut.across;
    lane = (tile * cut.across + x) * kSize;
    count = y < down && lane < cut.lanes ? count_of(y) : 0;
    valid = static_cast<int>(min(std::int64_t{kSize}, cut.lanes - lane));
    row = segment * cut.rows + first + y;
    offset = row * cut.lanes + lane;
    step = cut.down * cut.lanes;
  }
  /// Rows of thread y of a tile's `down`.
  __device__ unsigned count_of(unsigned y) const { return y < rows ? (rows - y + down - 1) / down : 0; }

  std::int64_t tile, segment, part;
  std::int64_t row, lane;  ///< the thread's first
  std::int64_t offset, step;
  unsigned rows;  ///< of the part
  unsigned down;
  unsigned count;  ///< rows of this thread; 0: nothing to do
  int valid;       ///< lanes of this thread that exist
};

/// Where merge_lanes() finds a thread's numbers of lane k of its packet.
__device__ inline Pair& lane_pair(Pair* shared, int k) { return shared[k * kNormThreads + threadIdx.x]; }

/// To be called by the whole block, each thread having set all its lane_pair()s in `shared`, kSize ·
/// kNormThreads pairs: adds up what a part has for each channel and stores it in pairs[part · statistics +
/// s].
template <class Tally, int kSize>
__device__ void merge_lanes(const RowCut& cut, const RowItem<kSize>& item, Pair* shared, Pair* pairs) {
  __shared__ double counts[kNormThreads];
  const unsigned lanes = cut.across * kSize;
  __syncthreads();
  // Over the rows side by side, `split` threads a lane.
  for (unsigned i = threadIdx.x; i < lanes * cut.split; i += kNormThreads) {
    const unsigned j = i / lanes, lane = i - j * lanes;
    const unsigned k = lane / cut.across, x = lane - k * cut.across;
    Pair* const column = shared + k * kNormThreads + x;
    Tally tally = Tally::around(column[j * cut.across].x);
    double rows = 0;
    for (unsigned y = j; y < cut.down; y += cut.split) {
      const double n = item.count_of(y);
      tally.add(n, column[y * cut.across]);
      rows += n;
    }
    column[j * cut.across] = tally.result();
    if (lane == 0) counts[j] = rows;
  }
  __syncthreads();
  if (cut.split > 1) {
    for (unsigned lane = threadIdx.x; lane < lanes; lane += kNormThreads) {
      const unsigned k = lane / cut.across, x = lane - k * cut.across;
      Pair* const column = shared + k * kNormThreads + x;
      Tally tally = Tally::around(column->x);
      for (unsigned j = 0; j < cut.split; ++j) tally.add(counts[j], column[j * cut.across]);
      *column = tally.result();
    }
    __syncthreads();
  }
  // Over the lanes of a channel.
  const std::int64_t first = item.tile * (lanes / cut.each);
  const auto channels = static_cast<unsigned>(min(std::int64_t{lanes / cut.each}, cut.channels - first));
  const unsigned groups = kNormThreads / cut.merging;
  const unsigned group = threadIdx.x / cut.merging, mine = threadIdx.x % cut.merging;
  for (unsigned begin = 0; begin < channels; begin += groups) {
    const unsigned channel = begin + group;
    const bool exists = channel < channels;
    const auto pair_of = [&](unsigned i) {
      const unsigned lane = channel * cut.each + i;
      return shared[lane % kSize * kNormThreads + lane / kSize];
    };
    Tally tally = Tally::around(exists ? pair_of(0).x : 0);
    for (unsigned i = mine; exists && i < cut.each; i += cut.merging) tally.add(item.rows, pair_of(i));
    tally = over_lanes(tally, static_cast<int>(cut.merging));
    if (exists && mine == 0)
      pairs[(item.part * cut.segments + item.segment) * cut.channels + first + channel] = tally.result();
  }
}

}  // namespace lamella::cuda
