#pragma once

#include "hooks.cuh"
#include "transform.cuh"
#include "vector.cuh"
#include "walk.cuh"
#include "work.cuh"

/// Dense planes (NCHW); blocks have kThreads threads. Neighbouring rows are one run of memory, whatever the
/// width: a block moves runs, of several small planes or of a band of rows, to shared memory and back sixteen
/// bytes at a time, and its threads take single numbers there. Threads side by side are an odd number of
/// columns apart, so that they meet no bank twice.
namespace lamella::depthwise {

/// Where element 0 of a run lies in shared memory: as far behind sixteen bytes as in global memory.
template <class T>
__device__ __forceinline__ int phase_of(const void* run) {
  return static_cast<int>(reinterpret_cast<unsigned long long>(run) % 16 / sizeof(T));
}

/// Begins to copy a run to `to` + its phase. Up to fifteen bytes before it are read, too, which lie in the
/// same allocation because that begins on sixteen bytes.
template <class T, int kThreads>
__device__ __forceinline__ void fetch_run(T* to, const T* run, int count) {
  constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));
  const int phase = phase_of<T>(run), end = phase + count, whole = end / kNumbers * kNumbers;
  const T* const from = run - phase;
  const int first = static_cast<int>(threadIdx.x) * kNumbers;
#pragma unroll 4
  for (int i = first; i < whole; i += kThreads * kNumbers) copy_ahead<16>(to + i, from + i, true);
  if (threadIdx.x == 0 && whole < end)
    copy_ahead_part(to + whole, from + whole, (end - whole) * static_cast<int>(sizeof(T)));
}

/// Copies a run that lies at `from` + `phase` out of shared memory.
template <class T, int kThreads>
__device__ __forceinline__ void put_run(T* run, const T* from, int phase, int count, bool accumulate) {
  constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));
  const int thread = static_cast<int>(threadIdx.x), end = phase + count;
  T* const to = run - phase;
  if (accumulate || phase != phase_of<T>(run)) {
    for (int i = phase + thread; i < end; i += kThreads)
      to[i] = accumulate ? narrow<T>(widen(to[i]) + widen(from[i])) : from[i];
    return;
  }
  const int begin = (phase + kNumbers - 1) / kNumbers * kNumbers, whole = end / kNumbers * kNumbers;
#pragma unroll 4
  for (int i = begin + thread * kNumbers; i < whole; i += kThreads * kNumbers)
    *reinterpret_cast<uint4*>(to + i) = *reinterpret_cast<const uint4*>(from + i);
  // What does not fill sixteen bytes, at the beginning and at the end.
  if (thread < kNumbers) {
    const int head = phase + thread, tail = max(whole, begin) + thread;
    if (head < min(begin, end)) to[head] = from[head];
    if (tail < end) to[tail] = from[tail];
  }
}

/// The threads of a block.
struct PlaneThread {
  int plane;  ///< output plane of the block
  int class_h, class_w, row_group, column_group;

  __device__ PlaneThread(const PlaneWork& work, int thread) {
    unsigned rest = static_cast<unsigned>(thread);
    const auto next = [&](int count) {
      const int digit = static_cast<int>(rest % static_cast<unsigned>(count));
      rest /= static_cast<unsigned>(count);
      return digit;
    };
    class_w = next(work.w.output_step);
    column_group = next(work.cut.column_groups);
    class_h = next(work.h.output_step);
    row_group = next(work.cut.row_groups);
    plane = static_cast<int>(rest);
  }
};

/// A window of columns of a row in shared memory. Where kEdges, only the first and last few can lie outside;
/// numbers outside become zero.
template <class T, int kCount, bool kDilated, bool kEdges, int kFirstInside, int kLastInside>
struct Window {
  static_assert(kCount <= kMostWindow);
  int step;                ///< from one column to the next
  unsigned inside;         ///< bit i: column i exists
  unsigned masks[kCount];  ///< all ones where it exists; of the edges alone

  __host__ __device__ static constexpr bool is_edge(int i) { return i < kFirstInside || i > kLastInside; }
  /// Columns begin … end - 1 exist, in columns of the window.
  __device__ __forceinline__ void begin(int column_step, int first, int end) {
    step = kDilated ? column_step : 1;
    inside = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool exists = i >= first && i < end;
      inside |= (exists ? 1u : 0u) << i;
      if (kEdges && is_edge(i)) masks[i] = exists ? 0xffffffffu : 0u;
    }
  }
  __device__ __forceinline__ void load(const T* row, float (&x)[kCount][1]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kEdges) {
        x[i][0] = widen(row[i * (kDilated ? step : 1)]);
        if (is_edge(i)) x[i][0] = __uint_as_float(__float_as_uint(x[i][0]) & masks[i]);
      } else {
        x[i][0] = 0;
        if (inside >> i & 1) x[i][0] = widen(row[i * (kDilated ? step : 1)]);
      }
    }
  }
};

template <class T, int kCount>
__device__ __forceinline__ void load_channel_taps(const Parameters& parameters, int channel,
                                                  float (&to)[kCount][1]) {
  float taps[kCount];
  load_taps<T>(parameters, channel, taps);
#pragma unroll
  for (int k = 0; k < kCount; ++k) to[k][0] = taps[k];
}

/// kEdges: every group of columns is full; the last of a row begins early and leaves out what it shares with
/// the one before. kDilated: columns of a class are not neighbours. kTapRows < kH: taps lie in shared memory.
/// kDouble: two runs of x, so that the next item's is on its way. kStatistics: blocks leave the moments of
/// each plane, or of its bands.
template <class T, class K, class Tile, int kTapRows, bool kDilated, bool kEdges, bool kDouble,
          int kTransforms, bool kStatistics, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) forward_planes(const PlaneWork work) {
  constexpr bool kLong = kTapRows < K::kH;
  constexpr int kWindow = kInputWindow<K, Tile>;
  using OnePlane = Kernel<K::kH, K::kW, K::kStrideH, K::kStrideW>;  // of a thread
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  T* const zeros = reinterpret_cast<T*>(shared);
  T* const inputs = zeros + cut.zeros;
  T* const outputs = inputs + (kDouble ? 2 : 1) * cut.input_numbers;
  float* const block_taps = reinterpret_cast<float*>(outputs + cut.output_numbers);
  for (int i = static_cast<int>(threadIdx.x); i < cut.zeros; i += kThreads) zeros[i] = T{};
  wait_for_stream();

  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  const PlaneThread thread(work, static_cast<int>(threadIdx.x));
  const int class_columns = work.w.outputs(thread.class_w);
  int column = thread.column_group * Tile::kColumns, skipped = 0;  // of the class
  if (kEdges && column + Tile::kColumns > class_columns) {
    skipped = column - (class_columns - Tile::kColumns);
    column -= skipped;
  }
  const int left = class_columns - column;
  const int out_column = thread.class_w + column * work.w.output_step;
  const int in_column = out_column * work.w.stride - work.w.padding;
  Window<T, kWindow, kDilated, kEdges, K::kW - 1, (Tile::kColumns - 1) * K::kStrideW> window;
  window.begin(work.w.input_step, Axis::ceiling(-in_column, work.w.input_step),
               Axis::ceiling(work.w.input - in_column, work.w.input_step));
  const int row_step = work.h.input_step * work.w.input, repeated_plane = thread.plane / K::kRepeat;

  const int repeat = K::kRepeat * work.y_step, out_channels = work.channels * repeat;
  struct Item {
    int plane, planes, first_row, rows, low, in_numbers;
  };
  const auto item_at = [&](int item) {
    Item at;
    const int group = item / cut.bands;
    at.plane = group * cut.planes;
    at.planes = min(cut.planes, work.input_planes - at.plane);
    at.first_row = (item - group * cut.bands) * cut.band_rows * work.h.output_step;
    at.rows = min(cut.band_rows * work.h.output_step, work.h.output - at.first_row);
    at.low = 0;
    at.in_numbers = at.planes * in_plane;
    if (cut.bands > 1) {
      const int low = at.first_row * work.h.stride - work.h.padding;
      const int high = low + (at.rows - 1) * work.h.stride + (K::kH - 1) * work.h.input_step + 1;
      at.low = min(max(low, 0), work.h.input);
      at.in_numbers = max(min(high, work.h.input) - at.low, 0) * work.w.input;
    }
    return at;
  };
  const auto run_of = [&](const Item& at) {
    return static_cast<const T*>(work.x) + static_cast<Int64>(at.plane) * in_plane + at.low * work.w.input;
  };
  const int begin = static_cast<int>(blockIdx.x) * work.items_per_part;
  const int end = min(begin + work.items_per_part, work.items);
  if (begin >= end) return;
  {
    const Item first = item_at(begin);
    fetch_run<T, kThreads>(inputs, run_of(first), first.in_numbers);
    end_copies();
  }
  Lanes<kTransforms, 1> lanes;
#pragma unroll 1
  for (int item = begin; item < end; ++item) {
    const Item at = item_at(item);
    T* const input = inputs + (kDouble ? (item - begin) % 2 * cut.input_numbers : 0);
    const int out_first = at.plane * repeat + work.y_first;  // plane of y
    const bool exists = thread.plane < at.planes * K::kRepeat;
    const int out_channel = (out_first + (exists ? thread.plane : 0)) % out_channels;
    float taps[kLong ? 1 : K::kTaps][1], bias[1] = {0.0f};
    if constexpr (kLong) {
      for (int i = static_cast<int>(threadIdx.x); i < at.planes * K::kRepeat * K::kTaps; i += kThreads) {
        const int p = i / K::kTaps, k = i - p * K::kTaps;
        block_taps[i] = load_parameter<T>(work.taps.taps, work.taps.taps_are_float32,
                                          static_cast<Int64>((out_first + p) % out_channels) * K::kTaps +
                                              (work.taps.turned ? K::kTaps - 1 - k : k));
      }
    } else {
      load_channel_taps<T>(work.taps, out_channel, taps);
    }
    bias[0] = load_bias<T>(work.taps, out_channel);
    lanes.begin(work.transform, out_channel / repeat);
    wait_for_copies<0>();
    __syncthreads();
    if constexpr (kDouble) {
      if (item + 1 < end) {
        const Item next = item_at(item + 1);
        fetch_run<T, kThreads>(inputs + (item + 1 - begin) % 2 * cut.input_numbers, run_of(next),
                               next.in_numbers);
      }
      end_copies();
    }
    T* const run =
        static_cast<T*>(work.y) + static_cast<Int64>(out_first) * out_plane + at.first_row * work.w.output;
    const int phase = phase_of<T>(run);
    ThreadMoments<kStatistics, 1> statistics;
    const int row = thread.row_group * Tile::kRows;  // of the class, in the band
    const int out_row = thread.class_h + row * work.h.output_step;
    if (exists && left > 0 && out_row < at.rows) {
      const int in_row = (at.first_row + out_row) * work.h.stride - work.h.padding;
      const T* const mine = input + phase_of<T>(run_of(at)) + repeated_plane * in_plane +
                            (in_row - at.low) * work.w.input + in_column;
      T* const out = outputs + phase + thread.plane * out_plane + out_row * work.w.output + out_column;
      const auto load_row = [&](int i, float(&x)[kWindow][1]) {
        const int y = in_row + i * work.h.input_step;
        const bool is_row = y >= 0 && y < work.h.input && (!kLong || i < kInputRows<K, Tile>);
        window.load(is_row ? mine + i * row_step : zeros, x);
        lanes.apply(x, is_row ? window.inside : 0u);
      };
      const auto row_done = [&](int r, const float(&y)[Tile::kColumns][1]) {
        if (out_row + r * work.h.output_step >= at.rows) return;
        T* const to = out + r * work.h.output_step * work.w.output;
        statistics.first(y[kEdges ? Tile::kColumns - 1 : 0]);
#pragma unroll
        for (int c = 0; c < Tile::kColumns; ++c)
          if (kEdges ? c >= skipped : c < left) {
            to[c * (kDilated ? work.w.output_step : 1)] = narrow<T>(y[c][0]);
            statistics.add(y[c]);
          }
      };
      if constexpr (kLong) {
        const auto load_taps = [&](int kh, float(&some)[kTapRows * K::kW][1]) {
#pragma unroll
          for (int k = 0; k < kTapRows * K::kW; ++k)
            some[k][0] =
                kh * K::kW + k < K::kTaps ? block_taps[thread.plane * K::kTaps + kh * K::kW + k] : 0.0f;
        };
        correlate_long<OnePlane, Tile, kTapRows>(bias, load_taps, load_row, row_done);
      } else {
        correlate<OnePlane, Tile>(taps, bias, load_row, row_done);
      }
    }
    __syncthreads();
    if constexpr (!kDouble) {
      if (item + 1 < end) {
        const Item next = item_at(item + 1);
        fetch_run<T, kThreads>(inputs, run_of(next), next.in_numbers);
        end_copies();
      }
    }
    const int numbers = cut.bands > 1 ? at.rows * work.w.output : at.planes * K::kRepeat * out_plane;
    put_run<T, kThreads>(run, outputs, phase, numbers, work.accumulate);
    if constexpr (kStatistics) {
      // The threads of a plane are neighbours.
      Moments* const list =
          reinterpret_cast<Moments*>(block_taps + (kLong ? cut.planes * K::kRepeat * K::kTaps : 0));
      const int of_plane = cut.column_groups * cut.row_groups * work.h.output_step * work.w.output_step;
      const int planes = at.planes * K::kRepeat, band = item % cut.bands;
      list[threadIdx.x] = statistics.of(0);
      merge_all(list, of_plane, 1, planes, of_plane, static_cast<int>(threadIdx.x), kThreads,
                [] { __syncthreads(); });
      for (int i = static_cast<int>(threadIdx.x); i < planes; i += kThreads) {
        const int image = (out_first + i) / out_channels, channel = out_first + i - image * out_channels;
        reinterpret_cast<Moments*>(
            work.hook.parts)[(static_cast<Int64>(image) * cut.bands + band) * out_channels + channel] =
            list[i * of_plane];
      }
      __syncthreads();
    }
  }
}

/// dx, the parts of dw, or both from the same walk, for channels (blockIdx.x % channel blocks) of several
/// images. Runs of x become runs of dx in place. kDirect: dx goes to memory number by number, because a
/// band's rows are no run. kTapRows and kNormSums as in backward_pixels. The outputs of a channel, for dx
/// alone, come one after the other; threads keep its sums meanwhile, so that it is rounded once.
template <class T, class K, class Tile, int kTapRows, bool kInput, bool kWeight, bool kBias, bool kDilated,
          bool kEdges, bool kDouble, bool kDirect, int kTransforms, int kNormSums, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_planes(const PlaneWork work) {
  constexpr bool kLong = kTapRows < K::kH;
  constexpr bool kReadsInput = kWeight || kNormSums != kPlain;
  constexpr bool kSeveral = K::kRepeat > 1, kHolds = kInput && (kLong || kSeveral);
  static_assert(!kSeveral || (kInput && !kReadsInput && !kBias));
  static_assert((!kLong && !kSeveral) || (kInput != kWeight && kTapRows % K::kStrideH == 0));
  static_assert(kNormSums == kPlain || (kInput && !kLong));
  using OneOutput = Kernel<K::kH, K::kW, K::kStrideH, K::kStrideW>;
  static_assert(Tile::kColumns * K::kStrideW <= kMostWindow);
  using Part = Kernel<kTapRows, K::kW, K::kStrideH, K::kStrideW>;  // what a thread has of the kernel for dw
  constexpr int kTapGroups = kWeight ? (K::kH + kTapRows - 1) / kTapRows : 1;
  constexpr int kSums = kWeight ? Part::kTaps : 1;
  // The group of taps that meets the row of the window whose sum is the bias's.
  const int owner_group = kTapGroups > 1 ? work.owner_h * K::kStrideH / kTapRows : 0;
  constexpr int kWindow = kOutputWindow<K, Tile>, kWidth = Tile::kColumns * K::kStrideW;
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  T* const zeros = reinterpret_cast<T*>(shared);
  T* const buffers = zeros + cut.zeros;
  const int buffer = cut.input_numbers + cut.output_numbers;
  for (int i = static_cast<int>(threadIdx.x); i < cut.zeros; i += kThreads) zeros[i] = T{};
  wait_for_stream();

  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  const int channel_blocks = (work.channels + cut.planes - 1) / cut.planes;
  const int first_channel = static_cast<int>(blockIdx.x) % channel_blocks * cut.planes;
  const int part = static_cast<int>(blockIdx.x) / channel_blocks;
  const int planes = min(cut.planes, work.channels - first_channel);
  const int outputs = K::kRepeat * work.y_step;  // of a channel, in as many steps or launches
  // Groups of taps are the outermost.
  const int members = kTapGroups > 1 ? cut.members : kThreads;
  const int tap_group = kTapGroups > 1 ? static_cast<int>(threadIdx.x) / members : 0;
  const PlaneThread thread(work, static_cast<int>(threadIdx.x) - tap_group * members);
  const bool works = thread.plane < planes && tap_group < kTapGroups;
  const int channel = first_channel + (works ? thread.plane : 0);

  const auto units_of = [&](const Axis& axis, int residue, int stride, int owner, int& begin, int& end) {
    begin = Axis::floor(axis.input_begin(residue), stride);
    end = Axis::ceiling(axis.input_end(residue), stride);
    if (kBias) {
      begin = min(begin, owner);
      end = max(end, axis.outputs(residue) + owner);
    }
  };
  int row_begin, row_end, column_begin, column_end;
  units_of(work.h, thread.class_h, K::kStrideH, work.owner_h, row_begin, row_end);
  units_of(work.w, thread.class_w, K::kStrideW, work.owner_w, column_begin, column_end);
  int unit = column_begin + thread.column_group * Tile::kColumns, skipped = 0;
  if (kEdges && unit + Tile::kColumns > column_end) {
    skipped = unit - (column_end - Tile::kColumns);
    unit -= skipped;
  }
  const int out_column = thread.class_w + (unit - (K::kReachW - 1)) * work.w.output_step;
  const int in_column = work.w.origin(thread.class_w) + unit * K::kStrideW * work.w.input_step;
  Window<T, kWindow, kDilated, kEdges, K::kReachW - 1, Tile::kColumns - 1> window;
  window.begin(work.w.output_step, Axis::ceiling(-out_column, work.w.output_step),
               Axis::ceiling(work.w.output - out_column, work.w.output_step));
  unsigned x_inside = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int at = in_column + j * work.w.input_step;
    x_inside |= (at >= 0 && at < work.w.input && j >= skipped * K::kStrideW ? 1u : 0u) << j;
  }

  float taps[kInput && !kHolds ? K::kTaps : 1][1], sums[kSums][1], total = 0;
  TileSums<OneOutput, Tile> held;
  float* const block_taps = reinterpret_cast<float*>(buffers + (kDouble ? 2 : 1) * buffer);
  if constexpr (kHolds) {
    for (int i = static_cast<int>(threadIdx.x); i < planes * K::kRepeat * K::kTaps; i += kThreads) {
      const int k = i % K::kTaps;
      block_taps[i] =
          load_parameter<T>(work.taps.taps, work.taps.taps_are_float32,
                            static_cast<Int64>(first_channel * outputs + work.y_first) * K::kTaps +
                                (work.taps.turned ? i + K::kTaps - 1 - 2 * k : i));
    }
  } else if constexpr (kInput) {
    load_channel_taps<T>(work.taps, channel * outputs + work.y_first, taps);
  }
  if constexpr (kWeight) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) sums[k][0] = 0;
  }
  Lanes<kTransforms, 1> lanes;
  lanes.begin(work.transform, channel);
  ThreadNormSums<kNormSums, 1> norm;
  norm.begin(work.transform, work.hook, channel);

  struct Item {
    Int64 plane;
    int first;  // unit of the band, of every class
    int x_low, x_numbers, g_low, g_numbers;
  };
  const int bands_begin = [&] {
    int least = 1 << 30;
    for (int residue = 0; residue < work.h.output_step; ++residue) {
      int begin, end;
      units_of(work.h, residue, K::kStrideH, work.owner_h, begin, end);
      least = min(least, begin);
    }
    return least;
  }();
  const auto item_at = [&](int item) {
    Item at;
    at.plane = static_cast<Int64>(item / cut.bands) * work.channels + first_channel;
    at.first = bands_begin + item % cut.bands * cut.band_rows;
    at.x_low = at.g_low = 0;
    at.x_numbers = planes * in_plane, at.g_numbers = (kSeveral ? 1 : planes) * out_plane;
    if (cut.bands > 1) {
      const int last_class = work.h.output_step - 1;
      const int x_low = work.h.origin(0) + at.first * K::kStrideH * work.h.input_step;
      const int x_high =
          work.h.origin(last_class) + ((at.first + cut.band_rows) * K::kStrideH - 1) * work.h.input_step + 1;
      at.x_low = min(max(x_low, 0), work.h.input);
      at.x_numbers = max(min(x_high, work.h.input) - at.x_low, 0) * work.w.input;
      const int g_low = (at.first - (K::kReachH - 1)) * work.h.output_step;
      const int g_high = last_class + (at.first + cut.band_rows - 1) * work.h.output_step + 1;
      at.g_low = min(max(g_low, 0), work.h.output);
      at.g_numbers = max(min(g_high, work.h.output) - at.g_low, 0) * work.w.output;
    }
    return at;
  };
  const auto x_run = [&](const Item& at) {
    return static_cast<const T*>(work.x) + at.plane * in_plane + at.x_low * work.w.input;
  };
  // Of several outputs a channel, that of one plane.
  const auto g_run = [&](const Item& at, int plane, int output) {
    return static_cast<const T*>(work.y) +
           ((at.plane + (kSeveral ? plane : 0)) * outputs + work.y_first + output) * out_plane +
           at.g_low * work.w.output;
  };
  const auto dx_run = [&](const Item& at) {
    return static_cast<T*>(work.dx) + at.plane * in_plane + at.x_low * work.w.input;
  };
  // A step is an output of an item.
  const auto output_of = [](int step) { return kSeveral ? step % K::kRepeat : 0; };
  const auto is_last = [&](int step) { return output_of(step) == K::kRepeat - 1; };
  const auto fetch = [&](int step, T* to) {
    const Item at = item_at(step / K::kRepeat);
    if constexpr (kReadsInput) fetch_run<T, kThreads>(to, x_run(at), at.x_numbers);
    // Added to before it is rounded.
    if (kSeveral && !kDirect && work.accumulate && is_last(step))
      fetch_run<T, kThreads>(to, dx_run(at), at.x_numbers);
#pragma unroll 1
    for (int plane = 0; plane < (kSeveral ? planes : 1); ++plane)
      fetch_run<T, kThreads>(to + cut.input_numbers + plane * cut.run_numbers,
                             g_run(at, plane, output_of(step)), at.g_numbers);
  };
  const int first_item = part * work.items_per_part;
  const int begin = first_item * K::kRepeat,
            end = min(first_item + work.items_per_part, work.items) * K::kRepeat;
  if (begin < end) fetch(begin, buffers);
  end_copies();
#pragma unroll 1
  for (int step = begin; step < end; ++step) {
    const Item at = item_at(step / K::kRepeat);
    T* const input = buffers + (kDouble ? (step - begin) % 2 * buffer : 0);
    const T* const gradient = input + cut.input_numbers;
    // dx takes the place of x; alone, it is as far behind sixteen bytes as its run is.
    const int phase = kReadsInput ? phase_of<T>(x_run(at)) : phase_of<T>(dx_run(at));
    wait_for_copies<0>();
    __syncthreads();
    if constexpr (kDouble) {
      if (step + 1 < end) fetch(step + 1, buffers + (step + 1 - begin) % 2 * buffer);
      end_copies();
    }
    if (kInput && !kReadsInput && !kDirect && work.h.stride * work.w.stride != K::kStrideH * K::kStrideW &&
        (!kSeveral || (is_last(step) && !work.accumulate))) {
      // Some inputs are read by no output.
      for (int i = static_cast<int>(threadIdx.x); i < at.x_numbers; i += kThreads) input[phase + i] = T{};
      __syncthreads();
    }
    const int row = at.first + thread.row_group * Tile::kRows;  // unit
    const int band_end = min(row_end, at.first + cut.band_rows);
    if (works && row < band_end && row + Tile::kRows > row_begin && unit < column_end) {
      const int out_row = thread.class_h + (row - (K::kReachH - 1)) * work.h.output_step;
      const int in_row = work.h.origin(thread.class_h) + row * K::kStrideH * work.h.input_step;
      const T* const my_g = gradient + phase_of<T>(g_run(at, thread.plane, output_of(step))) +
                            thread.plane * (kSeveral ? cut.run_numbers : out_plane) +
                            (out_row - at.g_low) * work.w.output + out_column;
      T* const my_x =
          input + phase + thread.plane * in_plane + (in_row - at.x_low) * work.w.input + in_column;
      T* const my_dx =
          kDirect ? dx_run(at) + thread.plane * in_plane + (in_row - at.x_low) * work.w.input + in_column
                  : my_x;
      const auto load_gradient = [&](int j, float(&g)[kWindow][1]) {
        const int y = out_row + j * work.h.output_step;
        const bool exists =
            (!kHolds || j >= 0) && y >= 0 && y < work.h.output && row - (K::kReachH - 1) + j < band_end;
        window.load(exists ? my_g + j * work.h.output_step * work.w.output : zeros, g);
        if constexpr (kBias) {
          const int own = j - (K::kReachH - 1) + work.owner_h, own_column = K::kReachW - 1 - work.owner_w;
          if (own >= 0 && own < Tile::kRows && row + own < band_end && tap_group == owner_group) {
#pragma unroll
            for (int i = 0; i < kWindow; ++i)
              if (i >= own_column + skipped && i < own_column + Tile::kColumns) total += g[i][0];
          }
        }
      };
      const auto x_row = [&](int i) { return in_row + i * work.h.input_step; };
      const auto is_mine = [&](int i) {
        return x_row(i) >= 0 && x_row(i) < work.h.input && row + i / K::kStrideH < band_end;
      };
      const int x_step = work.h.input_step * work.w.input;
      const auto load_input = [&](int i, float(&x)[kWidth][1]) {
        const unsigned inside = is_mine(i) ? x_inside : 0u;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          x[j][0] = 0;
          if (inside >> j & 1) x[j][0] = widen(my_x[i * x_step + j * (kDilated ? work.w.input_step : 1)]);
        }
        lanes.apply(x, inside);
      };
      const auto store_row = [&](int i, const float(&dx)[kWidth][1]) {
        if (!is_mine(i)) return;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          if (!(x_inside >> j & 1)) continue;
          T& to = my_dx[i * x_step + j * (kDilated ? work.w.input_step : 1)];
          if constexpr (kNormSums != kPlain) {
            float masked[1] = {dx[j][0]};
            const float z[1] = {widen(my_x[i * x_step + j * (kDilated ? work.w.input_step : 1)])};
            norm.pass(masked, z);
            to = narrow<T>(kDirect && work.accumulate ? widen(to) + masked[0] : masked[0]);
            continue;
          }
          to = narrow<T>((kDirect || kSeveral) && work.accumulate ? widen(to) + dx[j][0] : dx[j][0]);
        }
      };
      if constexpr (kHolds) {
        const float* const my_taps = block_taps + (thread.plane * K::kRepeat + output_of(step)) * K::kTaps;
        const auto load_taps = [&](int kh, float(&some)[kTapRows * K::kW][1]) {
#pragma unroll
          for (int k = 0; k < kTapRows * K::kW; ++k)
            some[k][0] = kh * K::kW + k < K::kTaps ? my_taps[kh * K::kW + k] : 0.0f;
        };
        if (output_of(step) == 0) held.clear();
        propagate_long<OneOutput, Tile, kTapRows>(load_taps, load_gradient, held);
        if (is_last(step)) held.store(store_row);
      } else if constexpr (kInput && kWeight) {
        propagate<K, Tile, true, true>(taps, sums, load_gradient, load_input, store_row);
      } else if constexpr (kInput) {
        propagate<K, Tile, true, false>(taps, taps, load_gradient, load_input, store_row);
      } else {
        // Row 0 of the part's window is this row of the whole one's.
        const int shift = K::kReachH - Part::kReachH - tap_group * (kTapRows / K::kStrideH);
        const auto load_part = [&](int j, float(&g)[kWindow][1]) { load_gradient(j + shift, g); };
        propagate<Part, Tile, false, true>(sums, sums, load_part, load_input, store_row);
      }
    }
    __syncthreads();
    if (kInput && !kDirect && is_last(step))
      put_run<T, kThreads>(dx_run(at), input, phase, at.x_numbers, !kSeveral && work.accumulate);
    if constexpr (!kDouble) {
      if (kInput && !kDirect) __syncthreads();
      if (step + 1 < end) fetch(step + 1, buffers);
      end_copies();
    }
  }

  if constexpr (kWeight) {
    // Over the threads of each plane in their order, so many taps of each group of taps at a time.
    constexpr int kAll = K::kTaps + 1, kOwn = kSums + 1, kAtOnce = 8;
    float* const lists = reinterpret_cast<float*>(buffers);
    const int of_plane = cut.members / cut.planes;
    wait_for_copies<0>();
#pragma unroll
    for (int k0 = 0; k0 < kOwn; k0 += kAtOnce) {
      __syncthreads();
#pragma unroll
      for (int k = k0; k < kOwn && k < k0 + kAtOnce; ++k)
        lists[(k - k0) * kThreads + static_cast<int>(threadIdx.x)] =
            k == kSums ? total : sums[k == kSums ? 0 : k][0];
      __syncthreads();
      const int some = min(kAtOnce, kOwn - k0), of_group = planes * some;
      for (int i = static_cast<int>(threadIdx.x); i < of_group * kTapGroups; i += kThreads) {
        const int taps_of = i / of_group, rest = i - taps_of * of_group, c = rest / some, k = rest - c * some;
        const int tap = k0 + k == kSums ? K::kTaps : taps_of * kSums + k0 + k;
        if (k0 + k == kSums ? taps_of != owner_group : tap >= K::kTaps) continue;
        const float* const list = lists + k * kThreads + taps_of * members + c * of_plane;
        float sum = 0;
        for (int m = 0; m < of_plane; ++m) sum += list[m];
        const Int64 row = static_cast<Int64>(part) * work.channels + first_channel + c;
        work.parts[(row * work.y_step + work.y_first) * kAll + tap] = sum;
      }
    }
  }
  if constexpr (kNormSums != kPlain) {
    NormSums* const list = reinterpret_cast<NormSums*>(buffers);
    const int of_plane = cut.members / cut.planes;
    wait_for_copies<0>();
    __syncthreads();
    list[threadIdx.x] = norm.of(0);
    merge_all(list, of_plane, 1, planes, of_plane, static_cast<int>(threadIdx.x), kThreads,
              [] { __syncthreads(); });
    for (int i = static_cast<int>(threadIdx.x); i < planes; i += kThreads)
      reinterpret_cast<NormSums*>(
          work.hook.parts)[static_cast<Int64>(part) * work.channels + first_channel + i] = list[i * of_plane];
  }
}

}  // namespace lamella::depthwise
