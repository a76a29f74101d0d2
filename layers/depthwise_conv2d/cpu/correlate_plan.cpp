#include "layers/depthwise_conv2d/cpu/correlate_plan.h"

#include <algorithm>

#include "layers/depthwise_conv2d/cpu/rounding.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"

namespace lamella::cpu {
namespace {

// From this much traffic on, an output will not be in the caches when somebody reads it.
constexpr std::int64_t kStreamedBytes = 32 << 20;
constexpr std::int64_t kFirstLevel = 16 << 10;    // what a block may take of the first-level cache
constexpr std::int64_t kSecondLevel = 256 << 10;  // and of the second
constexpr std::int64_t kTaskBytes = 512 << 10;

}  // namespace

template <class T>
CorrelationPlan<T>::CorrelationPlan(const Correlation& problem)
    : p(problem),
      planar(!use_channels_last(problem.source, problem.target, problem.weight.shape[0])),
      taps(problem.weight, problem.bias, problem.rows, problem.columns, planar),
      channels(problem.weight.shape[0]),
      row_classes(static_cast<std::int64_t>(problem.rows.size())),
      column_classes(static_cast<std::int64_t>(problem.columns.size())) {
  for (const AxisTaps& axis : p.rows) row_count = std::max(row_count, axis.count);
  for (const AxisTaps& axis : p.columns) column_count = std::max(column_count, axis.count);
  planes = p.target.shape[0] * (planar ? p.target.shape[1] : 1);
  choose_writing();
  cut_columns();
  cut_rows();
}

// Writing past the caches saves reading the lines first. The output is collected in a block and copied in one
// run, because rows may start anywhere in a cache line and few lines may be open at a time. Planar rows
// shorter than a vector are collected too: whole vectors then run over into the next row before that is
// written.
template <class T>
void CorrelationPlan<T>::choose_writing() {
  const Strides& strides = p.target.strides;
  const std::int64_t bytes = (p.source.numel() + p.target.numel()) * static_cast<std::int64_t>(sizeof(T));
  write_in_place =
      p.target.dtype == dtype_of<T> && (planar ? column_classes == 1 && strides[3] == 1 : p.reduce == 1);
  if (!write_in_place || p.accumulate || p.reduce > 1) return;
  const bool adjoin = planar ? row_classes == 1 && strides[2] == p.target.shape[3] : strides[3] == channels;
  stream = adjoin && bytes >= kStreamedBytes;
  collect = stream || (planar && adjoin && column_count < lane_count<T>());
  write_in_place = !collect;
}

template <class T>
void CorrelationPlan<T>::add_strip(std::int64_t first, std::int64_t last) {
  Reach reach = reach_of(p.columns, first, last);
  const std::int64_t width = p.source.shape[3];
  const std::int64_t overread = !planar && channels % lane_count<T>() == 0 ? 0 : kOverread;
  // Channels-last rows are read where they are if they can be: columns near the edge leave out the taps
  // outside.
  if (!planar) {
    const Reach inside{std::clamp<std::int64_t>(reach.begin, 0, width),
                       std::clamp<std::int64_t>(reach.end, 0, width)};
    if (ColumnWindow<T>(p.source, planar, p.repeat, inside, 1, overread).in_place) reach = inside;
  }
  const ColumnWindow<T> window(p.source, planar, p.repeat, reach, p.columns[0].in_step, overread);
  std::vector<std::int64_t> offsets;
  for (const AxisTaps& axis : p.columns) {
    for (const std::int64_t base : axis.base)
      offsets.push_back(window.offset(first * axis.in_step + base - reach.begin));
  }
  strips.push_back({first, last, window, std::move(offsets)});
}

template <class T>
void CorrelationPlan<T>::cut_columns() {
  constexpr std::int64_t element = sizeof(T);
  if (planar) {
    piece_columns = column_count;
    return add_strip(0, column_count);
  }
  // Cut wide rows so that the source rows under one block of output rows stay in the second-level cache.
  const std::int64_t height = 3 * p.rows[0].in_step + std::max<std::int64_t>(p.rows[0].taps(), 1);
  const std::int64_t source_bytes = channels * element * p.columns[0].in_step * height;
  const std::int64_t fitting = std::max<std::int64_t>(8, kSecondLevel / source_bytes);
  const std::int64_t width = round_up(divide_up(column_count, divide_up(column_count, fitting)), 2);
  for (std::int64_t first = 0; first < column_count; first += width) {
    add_strip(first, std::min(first + width, column_count));
  }
  piece_columns = width;
  if (stream) {
    const std::int64_t target_bytes = 4 * row_classes * column_classes * channels * element;
    piece_columns =
        std::clamp<std::int64_t>(kFirstLevel / target_bytes / 2 * 2, 4, std::max<std::int64_t>(4, width));
  }
}

template <class T>
void CorrelationPlan<T>::cut_rows() {
  constexpr std::int64_t element = sizeof(T);
  std::int64_t copied = 0;
  for (const Strip<T>& strip : strips) {
    zeros_size = std::max(zeros_size, strip.window.row_size);
    if (!strip.window.in_place) copied = std::max(copied, strip.window.row_size);
  }
  if (!write_in_place) {
    line_size = column_classes * (!planar   ? piece_columns * channels
                                  : collect ? column_count
                                            : round_up(column_count, kOverread));
  }
  const std::int64_t row_bytes = (copied * p.rows[0].in_step + line_size * row_classes) * element;
  const std::int64_t fitting = row_bytes == 0 ? 64 : kFirstLevel / row_bytes;
  block_rows = planar ? std::clamp<std::int64_t>(fitting / 4 * 4, 4, 64) : 4;

  const std::int64_t plane_bytes = (p.source.numel() + p.target.numel()) / planes * element;
  const std::int64_t pieces =
      std::max<std::int64_t>(1, plane_bytes / static_cast<std::int64_t>(strips.size()) / kTaskBytes);
  rows_per_task = round_up(divide_up(row_count, pieces), 4);
  row_tasks = divide_up(row_count, rows_per_task);
  if (row_tasks == 1) {
    const std::int64_t enough = kTaskBytes / 2 / std::max<std::int64_t>(plane_bytes, 1);
    planes_per_task = std::clamp<std::int64_t>(enough, 1, std::max<std::int64_t>(1, planes / 16));
  }
  block_rows = std::min(block_rows, rows_per_task);
  rows_ahead = planar || p.rows[0].in_step > 1 ? 0 : 4;
  for (std::int64_t first = 0; first < row_count; first += block_rows) {
    const Reach reach = reach_of(p.rows, first, first + block_rows);
    table_rows = std::max(table_rows, reach.end - reach.begin);
  }
}

template class CorrelationPlan<float>;
template class CorrelationPlan<double>;

}  // namespace lamella::cpu
