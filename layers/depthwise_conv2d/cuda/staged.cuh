#pragma once

#include <algorithm>
#include <cstring>

#include "core/cuda/divisor.cuh"
#include "layers/depthwise_conv2d/cuda/taps.cuh"

/// Planes that pass through shared memory. Dense planes are one run of memory, so they are moved sixteen
/// bytes at a time wherever their rows begin; the threads take single columns out of shared memory. A block
/// has several small planes, or a band of rows of a large one. With dilation, a thread's rows and columns are
/// those of one residue, among which the kernel is dense.
namespace lamella::cuda::depthwise {

inline constexpr int kStagedThreads = 128;
/// Bytes of shared memory that a block should use: several blocks must fit, so that some load while others
/// compute.
inline constexpr std::int64_t kStagedBytes = 32 << 10;
inline constexpr std::int64_t kMostStagedBytes = 48 << 10;

/// Blocks that a multiprocessor should hold at once: as many as the registers of small kernels allow.
template <class K>
inline constexpr int kStagedBlocks = K::kTaps > 9 || K::kTaps == 7 ? 1
                                     : K::kStride == 1             ? 6
                                                                   : 5;
template <class K>
inline constexpr int kStagedWeighBlocks = K::kTaps > 9 || K::kTaps == 7 ? 1
                                          : K::kStride == 1             ? 6
                                                                        : 4;

/// Where element 0 of a run lies in shared memory: as far behind sixteen bytes as in global memory.
template <class T>
__device__ inline int skew_of(const T* run) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(run) % 16 / sizeof(T));
}

/// Sixteen bytes to shared memory, without waiting for them.
__device__ inline void copy_ahead(void* shared, const void* global) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))), "l"(global)
               : "memory");
#else
  std::memcpy(shared, global, 16);
#endif
}
__device__ inline void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/// Begins to move a run of `count` elements to shared memory.
template <class T>
__device__ inline void stage_in(const T* run, int count, T* shared) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(T));
  const int skew = skew_of(run), thread = static_cast<int>(threadIdx.x);
  const int head = min(skew == 0 ? 0 : kPack - skew, count), packs = (count - head) / kPack;
  T* const to = shared + skew;
  for (int i = thread; i < packs; i += kStagedThreads)
    copy_ahead(to + head + i * kPack, run + head + i * kPack);
  const int tail = head + packs * kPack;
  if (thread < head) to[thread] = run[thread];
  if (thread < count - tail) to[tail + thread] = run[tail + thread];
}

/// Moves a run of `count` elements out of shared memory.
template <class T>
__device__ inline void stage_out(const T* shared, int count, T* run) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(T));
  const int skew = skew_of(run), thread = static_cast<int>(threadIdx.x);
  const int head = min(skew == 0 ? 0 : kPack - skew, count), packs = (count - head) / kPack;
  const T* const from = shared + skew;
  for (int i = thread; i < packs; i += kStagedThreads)
    *reinterpret_cast<uint4*>(run + head + i * kPack) =
        *reinterpret_cast<const uint4*>(from + head + i * kPack);
  const int tail = head + packs * kPack;
  if (thread < head) run[thread] = from[thread];
  if (thread < count - tail) run[tail + thread] = from[tail + thread];
}

template <class T, int kWindow_>
struct SharedRows {
  static constexpr int kWindow = kWindow_;
  struct Row {
    T numbers[kWindow];
  };
  const T* corner;  ///< the window's first column in row 0
  int width;        ///< of a row
  int first, step;  ///< row s of the strip is row first + s · step
  int column_step;
  int low, count;   ///< rows that exist and are wanted
  unsigned inside;  ///< bit i: column i of the window exists

  __device__ void place(int at) {
    inside = 0;
#pragma unroll
    for (int i = 0; i < kWindow; ++i) {
      const int where = at + i * column_step;
      inside |= (where >= 0 && where < width ? 1u : 0u) << i;
    }
  }
  __device__ void limit(int begin, int end, int height) {
    low = max(begin, 0);
    count = max(min(end, height) - low, 0);
  }
  __device__ Row load(int s) const {
    Row row{};
    const int at = first + s * step;
    if (static_cast<unsigned>(at - low) >= static_cast<unsigned>(count)) return row;
    const T* from = corner + at * width;
#pragma unroll
    for (int i = 0; i < kWindow; ++i)
      if (inside >> i & 1) row.numbers[i] = from[i * column_step];
    return row;
  }
  __device__ void unpack(const Row& row, float (&x)[kWindow][1]) const {
#pragma unroll
    for (int i = 0; i < kWindow; ++i) x[i][0] = detail::cuda::to_compute(row.numbers[i]);
  }
};

template <class T, int kColumns>
struct SharedTarget {
  T* corner;        ///< the tile's first column in row 0, in shared memory
  const T* before;  ///< the same in global memory, where values are added to what is there, else null
  int width, first, step, column_step;
  int begin, end;  ///< the rows of the band
  unsigned inside;

  __device__ void place(int at) {
    inside = 0;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int where = at + i * column_step;
      inside |= (where >= 0 && where < width ? 1u : 0u) << i;
    }
  }
  __device__ void store(int t, const float (&values)[kColumns][1]) const {
    const int at = first + t * step;
    if (at < begin || at >= end) return;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (!(inside >> i & 1)) continue;
      float value = values[i][0];
      if (before != nullptr) value += detail::cuda::to_compute(before[at * width + i * column_step]);
      corner[at * width + i * column_step] = detail::cuda::from_compute<T>(value);
    }
  }
};

/// What a band of target rows reads of a source, along the height.
struct Reach {
  int stride, padding;
  int extent;  ///< dilation · (kernel - 1) + 1
  bool scatters;
  int lead;  ///< where the source scatters: rows above the one that begins a target

  __device__ int begin(int target, int height) const {
    const int first = scatters ? (target + padding) / stride - lead : target * stride - padding;
    return min(max(first, 0), height);
  }
  /// Behind what the rows before `target` read.
  __device__ int end(int target, int height) const {
    const int last =
        scatters ? (target - 1 + padding) / stride + 1 : (target - 1) * stride - padding + extent;
    return min(max(last, 0), height);
  }
  /// Rows that `count` target rows read at most.
  std::int64_t rows(std::int64_t count) const {
    return scatters ? (count + 2 * stride - 2) / stride + lead : (count - 1) * stride + extent;
  }
};

/// The tiles of a problem: columns are counted in targets, or in pairs of them where pairs are made at once.
struct StagedTiles {
  int source_h, source_w, target_h, target_w;
  int columns;  ///< of all tiles, without residues
  int tile;     ///< columns of a tile
  int unit;     ///< target rows to one row of a thread's work
  int residues_h, residues_w;
  std::int64_t element;  ///< bytes

  std::int64_t plane_bytes() const {
    return (std::int64_t{source_h} * source_w + std::int64_t{target_h} * target_w) * element;
  }
};

/// How dense planes are cut into blocks and their threads' tiles.
struct StagedCut {
  detail::cuda::Divisor bands;  ///< of a plane, each a block's; 1 where a block has several planes
  detail::cuda::Divisor strips, residues_h, tiles, residues_w;  ///< of a band
  int planes = 1;                                               ///< of a block
  int band_rows = 0;                                            ///< target rows of a band
  int strip_rows = 0;                                           ///< of a thread, of one residue
  int threads_a_plane = 0;                                      ///< strips and tiles with all residues
  int source_bytes = 0, target_bytes = 0;                       ///< of shared memory
};

inline std::int64_t ceiling(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// A block may have up to `planes` planes. With `one_tile`, every thread has at most one tile. False where a
/// few rows are too much for shared memory.
inline bool cut_planes(StagedCut& cut, const StagedTiles& t, const Reach& reach, std::int64_t planes,
                       bool one_tile) {
  using detail::cuda::Divisor;
  constexpr std::int64_t kStrip = 7, kShortStrip = 4, kFewRows = 12;
  const auto bytes = [&](std::int64_t numbers) { return (ceiling(numbers * t.element, 16) + 1) * 16; };
  const auto source_rows = [&](std::int64_t rows) {
    return std::min<std::int64_t>(t.source_h, reach.rows(rows));
  };
  const auto need = [&](std::int64_t rows) {
    return bytes(source_rows(rows) * t.source_w) + bytes(rows * t.target_w);
  };
  std::int64_t rows = t.target_h, bands = 1, together = 1;
  if (t.plane_bytes() <= kStagedBytes) {
    together = std::clamp<std::int64_t>(kStagedBytes / t.plane_bytes(), 1, planes);
  } else {
    while (rows > 1 && need(rows) > kStagedBytes) rows = rows > 64 ? rows / 2 : rows - 1;
    while (rows < std::min<std::int64_t>(t.target_h, kFewRows) && need(rows + 1) <= kMostStagedBytes) ++rows;
    if (need(rows) > kMostStagedBytes || rows < std::min<std::int64_t>(t.target_h, t.unit * 2)) return false;
    bands = ceiling(t.target_h, rows);
    rows = ceiling(t.target_h, bands);
    bands = ceiling(t.target_h, rows);
  }
  const std::int64_t tiles = ceiling(t.columns, t.tile);
  std::int64_t across = tiles * t.residues_w * t.residues_h;
  if (one_tile) {
    if (across > kStagedThreads) return false;
    together = std::min(together, kStagedThreads / across);
    together = ceiling(planes, ceiling(planes, together));
  }
  across *= together;
  // Rows of one residue; a band may begin in the middle of a pair.
  const std::int64_t left = t.unit == 1 ? ceiling(rows, t.residues_h) : ceiling(rows + t.unit - 1, t.unit);
  const std::int64_t fitting =
      std::clamp<std::int64_t>(kStagedThreads / across, 1, ceiling(left, kShortStrip));
  std::int64_t strips = one_tile ? fitting : std::max(fitting, ceiling(left, kStrip));
  cut.strip_rows = static_cast<int>(ceiling(left, strips));
  strips = ceiling(left, cut.strip_rows);
  // No round of the threads for a few tiles.
  const std::int64_t items = across * strips, a_plane = items / together;
  if (items > kStagedThreads)
    together = std::clamp<std::int64_t>(items / kStagedThreads * kStagedThreads / a_plane, 1, together);
  cut.planes = static_cast<int>(together);
  cut.band_rows = static_cast<int>(rows);
  cut.threads_a_plane = static_cast<int>(strips * tiles * t.residues_h * t.residues_w);
  cut.bands = Divisor(static_cast<std::uint32_t>(bands));
  cut.strips = Divisor(static_cast<std::uint32_t>(strips));
  cut.tiles = Divisor(static_cast<std::uint32_t>(tiles));
  cut.residues_h = Divisor(static_cast<std::uint32_t>(t.residues_h));
  cut.residues_w = Divisor(static_cast<std::uint32_t>(t.residues_w));
  const bool whole = bands == 1;
  cut.source_bytes =
      static_cast<int>(bytes(whole ? together * t.source_h * t.source_w : source_rows(rows) * t.source_w));
  cut.target_bytes = static_cast<int>(bytes(together * rows * t.target_w));
  return cut.source_bytes + cut.target_bytes <= kMostStagedBytes;
}

struct StagedItem {
  int residue_w, tile, residue_h, strip, plane;
};
__device__ inline StagedItem staged_item(const StagedCut& cut, unsigned item) {
  StagedItem at;
  unsigned rest = cut.residues_w.divide(item);
  at.residue_w = static_cast<int>(item - rest * cut.residues_w.value);
  unsigned outer = cut.tiles.divide(rest);
  at.tile = static_cast<int>(rest - outer * cut.tiles.value);
  rest = cut.residues_h.divide(outer);
  at.residue_h = static_cast<int>(outer - rest * cut.residues_h.value);
  outer = cut.strips.divide(rest);
  at.strip = static_cast<int>(rest - outer * cut.strips.value);
  at.plane = static_cast<int>(outer);
  return at;
}

/// Whether a tensor is [N,C,H,W] without gaps, of planes that 32 bits measure easily.
inline bool is_dense(const detail::ConstTensorView& view) {
  constexpr std::int64_t kMost = 1 << 15;
  if (view.shape[2] > kMost || view.shape[3] > kMost) return false;
  std::int64_t expected = 1;
  for (int axis = 3; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

}  // namespace lamella::cuda::depthwise
