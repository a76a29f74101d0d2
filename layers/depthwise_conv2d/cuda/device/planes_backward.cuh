#pragma once

#include "planes.cuh"

/// The gradients of planes (planes.cuh).
namespace lamella::depthwise {

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

  const Units unit_rows = units_of(work.h, thread.class_h, K::kStrideH, kBias, work.owner_h),
              unit_columns = units_of(work.w, thread.class_w, K::kStrideW, kBias, work.owner_w);
  int unit = unit_columns.begin + thread.column_group * Tile::kColumns, skipped = 0;
  if (kEdges && unit + Tile::kColumns > unit_columns.end) {
    skipped = unit - (unit_columns.end - Tile::kColumns);
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
    for (int residue = 0; residue < work.h.output_step; ++residue)
      least = min(least, units_of(work.h, residue, K::kStrideH, kBias, work.owner_h).begin);
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
    const int band_end = min(unit_rows.end, at.first + cut.band_rows);
    if (works && row < band_end && row + Tile::kRows > unit_rows.begin && unit < unit_columns.end) {
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
