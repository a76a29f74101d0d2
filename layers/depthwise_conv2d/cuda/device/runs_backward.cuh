#pragma once

#include "runs.cuh"

/// The gradients of runs (runs.cuh).
namespace lamella::depthwise {

/// One axis of the walk over x, in units of `stride` inputs: unit u has inputs stride · u … stride · u +
/// stride - 1, and padding = stride · q + kPhase. Input a of a unit meets tap k in output u + q + (a + kPhase
/// - kSpread · k) / stride, where that is whole.
template <int kKernel, int kStride, int kSpread, int kPhase>
struct UnitReach {
  __host__ __device__ static constexpr bool meets(int a, int k) {
    return (a + kPhase - kSpread * k) % kStride == 0;
  }
  __host__ __device__ static constexpr int output(int a, int k) {
    return (a + kPhase - kSpread * k) / kStride;
  }
  __host__ __device__ static constexpr int edge(bool largest) {
    int found = 0;
    bool any = false;
    for (int a = 0; a < kStride; ++a)
      for (int k = 0; k < kKernel; ++k)
        if (meets(a, k) && (!any || (largest ? output(a, k) > found : output(a, k) < found)))
          found = output(a, k), any = true;
    return found;
  }
  static constexpr int kLow = edge(false),
                       kSpan = edge(true) - edge(false) + 1;  ///< of outputs, from u + q + kLow on
};

/// A thread has kColumns_ neighbouring units of kRows_ rows of units; it takes kVectorX_ neighbouring numbers
/// of x, and kVectorG_ of g, at once, of which its first is kOffset_ behind a whole vector.
template <int kColumns_, int kRows_, int kVectorX_, int kVectorG_, int kOffset_, int kPages_>
struct UnitTile {
  static constexpr int kColumns = kColumns_, kRows = kRows_, kVectorX = kVectorX_, kVectorG = kVectorG_;
  static constexpr int kOffset = kOffset_, kPages = kPages_;
};

/// dx, the parts of dw, or both. kMasks: columns of g beside its rows are read, or of x behind its own. The
/// bias's sum is that of output u + q - owner of every unit u. Channels are those of x; kRepeat planes of g
/// belong to each, side by side, in bands cut.run_numbers apart. kNormSums: dx goes back through it, and
/// blocks leave its sums; pages have x then, too.
template <class T, class K, class S, class Tile, bool kInput, bool kWeight, bool kBias, int kPhaseH,
          int kPhaseW, bool kMasks, int kTransforms, int kNormSums, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_runs(const PlaneWork work) {
  using ReachH = UnitReach<K::kH, K::kStrideH, S::kHeight, kPhaseH>;
  using ReachW = UnitReach<K::kW, K::kStrideW, S::kWidth, kPhaseW>;
  constexpr int kColumns = Tile::kColumns, kRows = Tile::kRows, kPages = Tile::kPages;
  constexpr int kWindow = kColumns + ReachW::kSpan - 1, kWindowRows = kRows + ReachH::kSpan - 1;
  constexpr int kWidth = kColumns * K::kStrideW, kHeight = kRows * K::kStrideH, kAll = K::kTaps + 1;
  constexpr int kConsumers = kThreads / 32 - 1, kWorkers = 32 * kConsumers;
  constexpr int kRepeat = K::kRepeat;
  constexpr bool kReadsInput = kWeight || kNormSums != kPlain;
  static_assert(kInput || kNormSums == kPlain);
  static_assert(kColumns % Tile::kVectorG == 0 && kWidth % Tile::kVectorX == 0);
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  char* const bytes = reinterpret_cast<char*>(shared) + cut.zeros * static_cast<int>(sizeof(T));
  const unsigned pages = shared_address(bytes);
  const int g_bytes = cut.output_numbers * static_cast<int>(sizeof(T));
  const int x_bytes = cut.input_numbers * static_cast<int>(sizeof(T));
  const int page_bytes = g_bytes + (kReadsInput ? x_bytes : 0), result_bytes = kInput ? x_bytes : 0;
  const unsigned full = pages + kPages * page_bytes + 2 * result_bytes, empty = full + 8 * kPages;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  wait_for_stream();
  __syncthreads();

  const int groups = (work.channels + cut.planes - 1) / cut.planes;
  const int first_channel = static_cast<int>(blockIdx.x) % groups * cut.planes;
  const int planes = min(cut.planes, work.channels - first_channel);
  const int part = static_cast<int>(blockIdx.x) / groups;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  const int q_h = work.h.padding / K::kStrideH, q_w = work.w.padding / K::kStrideW;
  const int unit_rows = (work.h.input + K::kStrideH - 1) / K::kStrideH;
  using Item = RunItem<>;
  struct Band {
    int unit, units, low, high;  ///< rows of units, and of g
    int x_row, x_rows;
  };
  const auto band_of = [&](const Item& item) {
    Band band;
    band.unit = item.band * cut.band_rows, band.units = min(cut.band_rows, unit_rows - band.unit);
    band.x_row = band.unit * K::kStrideH,
    band.x_rows = min(band.units * K::kStrideH, work.h.input - band.x_row);
    const int low = band.unit + q_h + ReachH::kLow, high = low + band.units + ReachH::kSpan - 1;
    band.low = cut.bands > 1 ? min(max(low, 0), work.h.output) : 0;
    band.high = cut.bands > 1 ? max(min(high, work.h.output), band.low) : work.h.output;
    return band;
  };
  const auto g_of = [&](const Item& item, const Band& band) {
    return static_cast<const T*>(work.y) +
           (static_cast<Int64>(item.image) * work.channels + first_channel) * kRepeat * out_plane +
           band.low * work.w.output;
  };
  const auto x_at = [&](const Item& item, const Band& band) {
    return (static_cast<Int64>(item.image) * work.channels + first_channel) * in_plane +
           band.x_row * work.w.input;
  };
  const auto numbers_of = [&](int rows, int width, int plane) {
    return cut.bands > 1 ? rows * width : planes * plane;
  };
  const int g_runs = cut.bands > 1 ? kRepeat : 1;  // of a page
  const auto g_count_of = [&](const Band& band) {
    return numbers_of(band.high - band.low, work.w.output, out_plane) * (kRepeat / g_runs);
  };
  Item item{first_item / cut.bands, first_item % cut.bands};
  PageCursor<kPages> cursor;
  float sums[kRepeat][kWeight ? K::kTaps : 1], total[kRepeat];
#pragma unroll
  for (int j = 0; j < kRepeat; ++j) {
    total[j] = 0;
#pragma unroll
    for (int k = 0; k < (kWeight ? K::kTaps : 1); ++k) sums[j][k] = 0;
  }
  const int thread = static_cast<int>(threadIdx.x), per_plane = cut.column_groups * cut.row_groups;
  const int plane = thread / per_plane, place = thread - plane * per_plane;
  ThreadNormSums<kNormSums, 1> norm;
  norm.begin(work.transform, work.hook, first_channel + (plane < planes ? plane : 0));

  if (warp == kConsumers) {
#pragma unroll 1
    for (int i = first_item; lane == 0 && i < last_item; ++i, item.advance(cut.bands)) {
      const Band band = band_of(item);
      const T* const g = g_of(item, band);
      const int g_numbers = g_count_of(band);
      unsigned g_count = 0;
      for (int j = 0; j < g_runs; ++j) g_count += LineRun<T>(g + j * out_plane, g_numbers).loaded_bytes();
      const T* const x = static_cast<const T*>(work.x) + x_at(item, band);
      const LineRun<T> x_run(x, numbers_of(band.x_rows, work.w.input, in_plane));
      const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * page_bytes;
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      expect_bytes(barrier, g_count + (kReadsInput ? x_run.loaded_bytes() : 0u));
      for (int j = 0; j < g_runs; ++j)
        LineRun<T>(g + j * out_plane, g_numbers)
            .load(to + j * cut.run_numbers * static_cast<int>(sizeof(T)), g + j * out_plane, barrier);
      if (kReadsInput) x_run.load(to + g_bytes, x, barrier);
      cursor.next();
    }
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int row_group = place / cut.column_groups,
              unit = (place - row_group * cut.column_groups) * kColumns;
    const bool works = plane < planes;
    float taps[kRepeat][kInput ? K::kTaps : 1];
    if constexpr (kInput) {
#pragma unroll
      for (int j = 0; j < kRepeat; ++j)
        load_taps<T>(work.taps, (first_channel + (works ? plane : 0)) * kRepeat + j, taps[j]);
    }
    const int g_column = unit + q_w + ReachW::kLow, x_column = unit * K::kStrideW;
    Lane<kWeight ? kTransforms : kPlain> transform;
    transform.begin(work.transform, first_channel + (works ? plane : 0));
    unsigned g_masks[kMasks ? kWindow : 1], x_masks[kMasks && kWeight ? kWidth : 1];
    if constexpr (kMasks) {
#pragma unroll
      for (int i = 0; i < kWindow; ++i)
        g_masks[i] = g_column + i >= 0 && g_column + i < work.w.output ? 0xffffffffu : 0u;
      if constexpr (kWeight) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) x_masks[i] = x_column + i < work.w.input ? 0xffffffffu : 0u;
      }
    }
    const int left = min(kWidth, work.w.input - x_column);

    int result = 0;
#pragma unroll 1
    for (int i = first_item; i < last_item; ++i, item.advance(cut.bands)) {
      const Band band = band_of(item);
      const T* const g_from = g_of(item, band);
      const LineRun<T> x_run(static_cast<const T*>(work.x) + x_at(item, band), 0);
      T* const dx = static_cast<T*>(work.dx) + (kInput ? x_at(item, band) : 0);
      const LineRun<T> of(dx, numbers_of(band.x_rows, work.w.input, in_plane));
      T* const results = reinterpret_cast<T*>(bytes + kPages * page_bytes + result * result_bytes);
      wait_for_phase(full + 8 * cursor.slot, cursor.parity);
      if (works) {
        const char* const page = bytes + cursor.slot * page_bytes;
        const T* g_pages[kRepeat];
#pragma unroll
        for (int j = 0; j < kRepeat; ++j) {
          const LineRun<T> run(g_from + (g_runs > 1 ? j * out_plane : 0), 0);
          g_pages[j] = reinterpret_cast<const T*>(page) + run.phase + g_column - Tile::kOffset +
                       (g_runs > 1 ? j * cut.run_numbers : (plane * kRepeat + j) * out_plane);
        }
        const T* const x_page =
            reinterpret_cast<const T*>(page + g_bytes) + x_run.phase + plane * in_plane + x_column;
#pragma unroll 1
        for (int row = row_group * kRows; row < band.units; row += cut.row_groups * kRows) {
          float x[kWeight ? kHeight : 1][kWidth], results_of[kInput ? kHeight : 1][kWidth];
          if constexpr (kWeight) {
#pragma unroll
            for (int r = 0; r < kHeight; ++r) {
              if (row * K::kStrideH + r < band.x_rows) {
                load_window<T, Tile::kVectorX, 0>(x_page + (row * K::kStrideH + r) * work.w.input, x[r]);
                transform.apply(x[r]);
                if constexpr (kMasks) {
#pragma unroll
                  for (int c = 0; c < kWidth; ++c)
                    x[r][c] = __uint_as_float(__float_as_uint(x[r][c]) & x_masks[c]);
                }
              } else {
#pragma unroll
                for (int c = 0; c < kWidth; ++c) x[r][c] = 0;
              }
            }
          }
          if constexpr (kInput) {
#pragma unroll
            for (int r = 0; r < kHeight; ++r)
#pragma unroll
              for (int c = 0; c < kWidth; ++c) results_of[r][c] = 0;
          }
          const int g_row = band.unit + row + q_h + ReachH::kLow;
#pragma unroll
          for (int m = 0; m < kRepeat; ++m) {
#pragma unroll
            for (int j = 0; j < kWindowRows; ++j) {
              if (g_row + j < band.low || g_row + j >= band.high) continue;
              float g[kWindow];
              load_window<T, Tile::kVectorG, Tile::kOffset>(
                  g_pages[m] + (g_row + j - band.low) * work.w.output, g);
              if constexpr (kMasks) {
#pragma unroll
                for (int c = 0; c < kWindow; ++c) g[c] = __uint_as_float(__float_as_uint(g[c]) & g_masks[c]);
              }
              if constexpr (kBias) {
                // Each gradient counts once: for the unit whose it is.
                const int own = j + ReachH::kLow + work.owner_h, column = -work.owner_w - ReachW::kLow;
                if (own >= 0 && own < kRows && row + own < band.units) {
#pragma unroll
                  for (int c = 0; c < kWindow; ++c)
                    if (c >= column && c < column + kColumns && c - column + unit < cut.owned_columns)
                      total[m] += g[c];
                }
              }
#pragma unroll
              for (int r = 0; r < kRows; ++r)
#pragma unroll
                for (int a = 0; a < K::kStrideH; ++a)
#pragma unroll
                  for (int kh = 0; kh < K::kH; ++kh) {
                    if (!ReachH::meets(a, kh) || r + ReachH::output(a, kh) - ReachH::kLow != j) continue;
#pragma unroll
                    for (int b = 0; b < K::kStrideW; ++b)
#pragma unroll
                      for (int kw = 0; kw < K::kW; ++kw) {
                        if (!ReachW::meets(b, kw)) continue;
#pragma unroll
                        for (int c = 0; c < kColumns; ++c) {
                          const float gradient = g[c + ReachW::output(b, kw) - ReachW::kLow];
                          const int x_r = r * K::kStrideH + a, x_c = c * K::kStrideW + b;
                          if constexpr (kInput) results_of[x_r][x_c] += taps[m][kh * K::kW + kw] * gradient;
                          if constexpr (kWeight) sums[m][kh * K::kW + kw] += x[x_r][x_c] * gradient;
                        }
                      }
                  }
            }
          }
          if constexpr (kInput) {
            T* to = results + of.phase + plane * in_plane + row * K::kStrideH * work.w.input + x_column;
#pragma unroll
            for (int r = 0; r < kHeight; ++r) {
              if (row * K::kStrideH + r < band.x_rows) {
                if constexpr (kNormSums != kPlain) {
                  float z[kWidth];
                  load_window<T, Tile::kVectorX, 0>(x_page + (row * K::kStrideH + r) * work.w.input, z);
#pragma unroll
                  for (int c = 0; c < kWidth; ++c) {
                    if (c >= left) continue;
                    float masked[1] = {results_of[r][c]};
                    const float before[1] = {z[c]};
                    norm.pass(masked, before);
                    results_of[r][c] = masked[0];
                  }
                }
                keep_row<T, Tile::kVectorX>(to, results_of[r], left);
              }
              to += work.w.input;
            }
          }
        }
      }
      if constexpr (kInput) {
        hand_to_copy_engine();
        if (thread == 0) wait_until_stores_have_read();  // the other place for results is free
      }
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
      if constexpr (kInput) {
        synchronize_some(1, kWorkers);
        if (thread == 0 && of.whole > of.begin) {
          store_bytes(dx - of.phase + of.begin,
                      pages + kPages * page_bytes + result * result_bytes +
                          static_cast<unsigned>(of.begin * sizeof(T)),
                      static_cast<unsigned>((of.whole - of.begin) * sizeof(T)));
          end_stores();
        }
        // What does not fill sixteen bytes, at the beginning and at the end.
        if (thread < LineRun<T>::kNumbers) {
          const int head = of.phase + thread, tail = max(of.whole, of.begin) + thread;
          if (head < min(of.begin, of.end)) dx[thread] = results[head];
          if (tail < of.end) dx[tail - of.phase] = results[tail];
        }
        result ^= 1;
      }
    }
    if (kInput && thread == 0) wait_until_stores_have_read();
  }

  if constexpr (kWeight) {
    // The threads of a plane in their order, so many taps at a time.
    constexpr int kAtOnce = 8;
    float* const block_sums = reinterpret_cast<float*>(bytes);
    float* const to =
        work.parts + (static_cast<Int64>(part) * work.channels + first_channel) * kRepeat * kAll;
#pragma unroll
    for (int k0 = 0; k0 < kRepeat * kAll; k0 += kAtOnce) {
      __syncthreads();
      if (plane < planes && warp < kConsumers) {
#pragma unroll
        for (int k = k0; k < kRepeat * kAll && k < k0 + kAtOnce; ++k) {
          const int tap = k % kAll;
          block_sums[(k - k0) * kWorkers + thread] =
              tap < K::kTaps ? sums[k / kAll][tap < K::kTaps ? tap : 0] : total[k / kAll];
        }
      }
      __syncthreads();
      for (int i = thread; i < planes * kAtOnce; i += kThreads) {
        const int p = i / kAtOnce, k = i - p * kAtOnce;
        if (k0 + k >= kRepeat * kAll) continue;
        float sum = 0;
        for (int t = 0; t < per_plane; ++t) sum += block_sums[k * kWorkers + p * per_plane + t];
        to[p * kRepeat * kAll + k0 + k] = sum;
      }
    }
  }
  if constexpr (kNormSums != kPlain) {
    NormSums* const list = reinterpret_cast<NormSums*>(bytes);
    __syncthreads();
    if (warp < kConsumers) list[thread] = norm.of(0);
    merge_all(list, per_plane, 1, planes, per_plane, thread, kThreads, [] { __syncthreads(); });
    NormSums* const to = reinterpret_cast<NormSums*>(work.hook.parts) +
                         static_cast<Int64>(part) * work.channels + first_channel;
    for (int i = thread; i < planes; i += kThreads) to[i] = list[i * per_plane];
  }
}

}  // namespace lamella::depthwise
