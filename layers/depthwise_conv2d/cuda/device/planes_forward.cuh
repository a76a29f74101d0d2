#pragma once

#include "planes.cuh"

/// The forward of planes (planes.cuh), or the input's gradient at stride 1.
namespace lamella::depthwise {

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

}  // namespace lamella::depthwise
