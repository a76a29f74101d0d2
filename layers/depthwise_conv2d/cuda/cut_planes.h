#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How dense planes are shared out among blocks whose threads move them.
namespace lamella::depthwise {

/// Whether all groups of columns are full or can begin early, and only the edges of their windows lie
/// outside. The first group reaches the furthest to one side, the last to the other.
inline bool has_edges_alone(const Axis& axis, const KernelSizes& kernel, int columns) {
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const int count = axis.outputs(residue);
    if (count < columns) return false;
    for (const int first : {0, count - columns}) {
      const int begin =
          axis.origin(residue) + axis.input_step * (first * kernel.stride_w + kernel.kernel_w - 1);
      const int end = axis.origin(residue) + axis.input_step * ((first + columns - 1) * kernel.stride_w);
      if (begin < 0 || end >= axis.input || (begin <= end && (begin >= axis.input || end < 0))) return false;
    }
  }
  return true;
}
inline bool has_edges_alone_backward(const Axis& axis, const KernelSizes& kernel, int columns, bool owns,
                                     int owner) {
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const Units units = units_of(axis, residue, kernel.stride_w, owns, owner);
    if (units.end - units.begin < columns) return false;
    for (const int at : {units.begin, units.end - columns}) {
      // Inside are columns reach_w - 1 … columns - 1 of the window, which begins reach_w - 1 before `at`.
      const int begin = at, end = at + columns - kernel.reach_w();
      if (begin <= end && (begin < 0 || end >= axis.outputs(residue))) return false;
    }
  }
  return true;
}

/// The launch of forward_planes for dense planes; no blocks: a band does not fit.
inline Launch cut_forward_planes(PlaneWork& work, std::int64_t planes, const KernelSizes& kernel,
                                 const TileSizes& tile, int number_bytes, int threads,
                                 std::int64_t most_bytes, bool is_double, bool is_long, std::int64_t rounds) {
  PlaneCut& cut = work.cut;
  const std::int64_t numbers = 16 / number_bytes;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t class_rows = ceiling(work.h.output, work.h.output_step);
  const std::int64_t classes = std::int64_t{work.h.output_step} * work.w.output_step;
  cut.column_groups = static_cast<int>(ceiling(ceiling(work.w.output, work.w.output_step), tile.columns));
  const std::int64_t a_row = cut.column_groups * classes;  // threads of a group of rows
  const std::int64_t window = (std::int64_t{tile.columns} - 1) * kernel.stride_w + kernel.kernel_w;
  cut.zeros = static_cast<int>(round_up((window - 1) * work.w.input_step + 1, numbers));
  const auto capacity = [&](std::int64_t in, std::int64_t out) {
    // A window may begin before a run and end behind it: not where results are written meanwhile.
    cut.input_numbers = static_cast<int>(round_up(in + numbers - 1 + window * work.w.input_step, numbers));
    cut.output_numbers = static_cast<int>(round_up(out + numbers - 1, numbers));
    return (cut.zeros + std::int64_t{cut.input_numbers} * (is_double ? 2 : 1) + cut.output_numbers) *
           number_bytes;
  };
  const auto band_rows_of_input = [&](std::int64_t rows) {
    return std::min<std::int64_t>(work.h.input, (rows * work.h.output_step - 1) * work.h.stride +
                                                    std::int64_t{kernel.kernel_h - 1} * work.h.input_step +
                                                    1);
  };
  Launch launch;
  if (a_row * kernel.repeat > threads) return launch;
  std::int64_t row_groups = ceiling(class_rows, tile.rows);
  cut.planes = 1;
  cut.bands = 1;
  cut.band_rows = static_cast<int>(class_rows);
  if (a_row * row_groups * kernel.repeat <= threads &&
      capacity(in_plane, out_plane * kernel.repeat) <= most_bytes) {
    std::int64_t together = work.y_step > 1 ? 1 : threads / (a_row * row_groups * kernel.repeat);
    while (together > 1 && capacity(together * in_plane, together * out_plane * kernel.repeat) > most_bytes)
      --together;
    cut.planes = static_cast<int>(std::min(together, planes));
    // Few rounds of planes for all blocks alike.
    cut.planes = static_cast<int>(ceiling(planes, ceiling(planes, cut.planes)));
    capacity(cut.planes * in_plane, cut.planes * out_plane * kernel.repeat);
  } else {
    if (kernel.repeat > 1) return launch;
    std::int64_t most = std::min(row_groups, threads / a_row);
    while (most > 0 && capacity(band_rows_of_input(most * tile.rows) * work.w.input,
                                most * tile.rows * work.h.output_step * work.w.output) > most_bytes)
      --most;
    if (most == 0) return launch;
    cut.bands = static_cast<int>(ceiling(row_groups, most));
    row_groups = ceiling(row_groups, cut.bands);
    cut.band_rows = static_cast<int>(row_groups * tile.rows);
    cut.bands = static_cast<int>(ceiling(class_rows, cut.band_rows));
    if (cut.bands == 1)  // all of the plane is copied
      capacity(in_plane, out_plane);
    else
      capacity(band_rows_of_input(cut.band_rows) * work.w.input,
               std::int64_t{cut.band_rows} * work.h.output_step * work.w.output);
  }
  cut.row_groups = static_cast<int>(row_groups);
  work.input_planes = static_cast<int>(planes);
  work.items = static_cast<int>(ceiling(planes, cut.planes) * cut.bands);
  work.items_per_part = static_cast<int>(rounds);
  launch.blocks = ceiling(work.items, rounds);
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + std::int64_t{cut.input_numbers} * (is_double ? 2 : 1) + cut.output_numbers) *
          number_bytes +
      (is_long ? std::int64_t{cut.planes} * kernel.repeat * kernel.kernel_h * kernel.kernel_w * 4 : 0);
  return launch;
}

/// The launch of backward_planes. Several outputs a channel (kernel.repeat) are for dx alone.
inline Launch cut_backward_planes(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                  const KernelSizes& kernel, const TileSizes& tile, int tap_rows,
                                  int number_bytes, int threads, std::int64_t most_bytes, bool is_double,
                                  bool input, bool weight, bool bias, bool direct,
                                  std::int64_t wanted_blocks) {
  PlaneCut& cut = work.cut;
  const int tap_groups = weight ? static_cast<int>(ceiling(kernel.kernel_h, tap_rows)) : 1;
  const std::int64_t most_threads = threads / tap_groups;
  work.owner_h = owner_of(work.h, kernel.stride_h, kernel.reach_h());
  work.owner_w = owner_of(work.w, kernel.stride_w, kernel.reach_w());
  const UnitRange rows = all_classes(work.h, kernel.stride_h, bias, work.owner_h);
  const UnitRange columns = widest_class(work.w, kernel.stride_w, bias, work.owner_w);
  const std::int64_t numbers = 16 / number_bytes;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t classes = std::int64_t{work.h.output_step} * work.w.output_step;
  cut.column_groups = static_cast<int>(ceiling(columns.count, tile.columns));
  const std::int64_t a_row = cut.column_groups * classes;
  const std::int64_t window = tile.columns + kernel.reach_w() - 1;
  cut.zeros = static_cast<int>(
      round_up(window * work.w.output_step + kernel.reach_w() * work.w.output_step, numbers));
  // A window of y may begin before its run, but not where dx is written meanwhile.
  const std::int64_t before = input && !direct ? kernel.reach_w() * work.w.output_step : 0;
  const bool several = kernel.repeat > 1;
  const auto capacity = [&](std::int64_t planes, std::int64_t in, std::int64_t out) {
    cut.input_numbers = static_cast<int>(
        weight || (input && !direct) ? round_up(planes * in + numbers - 1 + before, numbers) : 0);
    // Planes of one output of neighbouring channels are no neighbours.
    cut.run_numbers = static_cast<int>(several ? round_up(out + numbers - 1, numbers) : 0);
    const std::int64_t of_g = several ? planes * cut.run_numbers : planes * out + numbers - 1;
    cut.output_numbers = static_cast<int>(round_up(of_g + window * work.w.output_step, numbers));
    return (cut.zeros + (std::int64_t{cut.input_numbers} + cut.output_numbers) * (is_double ? 2 : 1)) *
           number_bytes;
  };
  const auto band_capacity = [&](std::int64_t units) {
    const std::int64_t spread = std::int64_t{work.h.output_step - 1} * work.h.stride;
    const std::int64_t x_rows =
        std::min<std::int64_t>(work.h.input, (units * kernel.stride_h - 1) * work.h.input_step + spread + 1);
    const std::int64_t g_rows = std::min<std::int64_t>(
        work.h.output, (units + kernel.reach_h() - 2) * work.h.output_step + work.h.output_step - 1 + 1);
    return capacity(1, x_rows * work.w.input, g_rows * work.w.output);
  };
  Launch launch;
  if (a_row > most_threads) return launch;
  std::int64_t row_groups = ceiling(rows.count, tile.rows);
  cut.planes = cut.bands = 1;
  if (a_row * row_groups <= most_threads && capacity(1, in_plane, out_plane) <= most_bytes) {
    std::int64_t together = work.y_step > 1 ? 1 : most_threads / (a_row * row_groups);
    while (together > 1 && capacity(together, in_plane, out_plane) > most_bytes) --together;
    cut.planes = static_cast<int>(std::min(together, channels));
    cut.planes = static_cast<int>(ceiling(channels, ceiling(channels, cut.planes)));
    capacity(cut.planes, in_plane, out_plane);
    cut.band_rows = static_cast<int>(row_groups * tile.rows);
  } else {
    // A band's rows must be a run, and all be written.
    const bool all_are_read = work.h.stride == kernel.stride_h && work.w.stride == kernel.stride_w;
    if (input && !direct && (work.h.output_step > 1 || !all_are_read)) return launch;
    std::int64_t most = std::min(row_groups, most_threads / a_row);
    while (most > 0 && band_capacity(most * tile.rows) > most_bytes) --most;
    if (most == 0) return launch;
    cut.bands = static_cast<int>(ceiling(row_groups, most));
    row_groups = ceiling(row_groups, cut.bands);
    cut.band_rows = static_cast<int>(row_groups * tile.rows);
    cut.bands = static_cast<int>(ceiling(rows.count, cut.band_rows));
    if (cut.bands == 1)
      capacity(1, in_plane, out_plane);
    else
      band_capacity(cut.band_rows);
  }
  cut.row_groups = static_cast<int>(row_groups);
  work.channels = static_cast<int>(channels);
  const std::int64_t items = images * cut.bands;
  if (items > kMostItems / kernel.repeat) return launch;
  share_items(work, launch, items, wanted_blocks);
  cut.members = static_cast<int>(a_row * row_groups * cut.planes);
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + (std::int64_t{cut.input_numbers} + cut.output_numbers) * (is_double ? 2 : 1)) *
      number_bytes;
  if (!weight && (several || tap_rows < kernel.kernel_h))
    launch.shared_bytes = round_up(launch.shared_bytes, 16) +
                          std::int64_t{cut.planes} * kernel.repeat * kernel.kernel_h * kernel.kernel_w * 4;
  if (weight)
    launch.shared_bytes =
        std::max<std::int64_t>(launch.shared_bytes, cut.zeros * number_bytes + 8 * 4 * launch.threads);
  return launch;
}

}  // namespace lamella::depthwise
