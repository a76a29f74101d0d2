#include "layers/depthwise_conv2d/cpu/weight_plan.h"

#include <algorithm>

#include "layers/depthwise_conv2d/cpu/rounding.h"

namespace lamella::cpu {
namespace {

constexpr std::int64_t kFirstLevel = 16 << 10;    // what a block may take of the first-level cache
constexpr std::int64_t kSecondLevel = 256 << 10;  // and of the second,
constexpr std::int64_t kWholeRows = 480
                                    << 10;  // or this much where that keeps rows whole: they are read faster
constexpr std::int64_t kTaskBytes = 512 << 10;
constexpr std::int64_t kMostParts = 64;
constexpr std::int64_t kSharedRows = 4;  // rows that the loops take at a time

// Cuts `count` into pieces of nearly one size, none above `most`.
std::vector<Reach> pieces_of(std::int64_t count, std::int64_t most) {
  std::vector<Reach> pieces;
  const std::int64_t number = divide_up(count, most);
  for (std::int64_t i = 0, begin = 0; i < number; ++i) {
    const std::int64_t end = begin + divide_up(count - begin, number - i);
    pieces.push_back({begin, end});
    begin = end;
  }
  return pieces;
}

}  // namespace

template <class T>
WeightPlan<T>::WeightPlan(const WeightProblem& problem)
    : p(problem),
      geometry(problem.geometry),
      planar(!use_channels_last(problem.grad_output, problem.input, problem.geometry.out_channels)),
      channels(geometry.out_channels),
      padded_channels(round_up(channels, kOverread)),
      multiplier(geometry.multiplier()),
      taps(geometry.kernel.h * geometry.kernel.w),
      lanes(lane_count<T>()),
      rows(scattering_taps(geometry.in.h, geometry.kernel.h, geometry.stride.h, geometry.padding.h,
                           geometry.dilation.h)),
      columns(gathering_taps(geometry.out.w, geometry.kernel.w, geometry.stride.w, geometry.padding.w,
                             geometry.dilation.w)
                  .front()) {
  for (const AxisTaps& axis : rows) row_count = std::max(row_count, axis.count);
  cut_taps();
  choose_block();
  cut_columns();
  cut_parts();
}

template <class T>
void WeightPlan<T>::cut_taps() {
  for (const AxisTaps& axis : rows) {
    tiles.emplace_back();
    for (const Reach& h : pieces_of(axis.taps(), kMaxRowTaps)) {
      for (const Reach& w : pieces_of(columns.taps(), kMaxColumnTaps)) {
        const std::int64_t height = h.end - h.begin, width = w.end - w.begin;
        tiles.back().push_back({h.begin, height, w.begin, width, gradient_loop<T>(planar, height, width)});
      }
    }
  }
}

template <class T>
void WeightPlan<T>::choose_block() {
  const std::int64_t step = rows[0].out_step;
  block_rows = kSharedRows;
  if (planar) {
    const std::int64_t row_bytes =
        (geometry.in.w * step + geometry.out.w) * static_cast<std::int64_t>(sizeof(T));
    block_rows =
        std::clamp<std::int64_t>(kFirstLevel / row_bytes / kSharedRows * kSharedRows, kSharedRows, 64);
  }
  block_rows = std::min(block_rows, row_count);
  x_slots = block_rows * step;
  g_slots = block_rows;
  for (std::int64_t first = 0; first < row_count; first += block_rows) {
    const Reach reach = reach_of(rows, first, first + block_rows);
    g_slots = std::max(g_slots, reach.end - reach.begin);
  }
}

template <class T>
void WeightPlan<T>::cut_columns() {
  if (planar) return add_strip(0, columns.count);
  // Wide rows are cut so that a block stays in the second-level cache from one vector of channels to the
  // next.
  const std::int64_t column_bytes =
      channels * static_cast<std::int64_t>(sizeof(T)) * (x_slots * columns.in_step + g_slots);
  const std::int64_t fitting = columns.count * column_bytes <= kWholeRows
                                   ? columns.count
                                   : std::max<std::int64_t>(8, kSecondLevel / column_bytes);
  for (const Reach& strip : pieces_of(columns.count, fitting)) add_strip(strip.begin, strip.end);
}

template <class T>
void WeightPlan<T>::add_strip(std::int64_t first, std::int64_t last) {
  Reach reach = reach_of({columns}, first, last);
  const std::int64_t width = geometry.in.w;
  const std::int64_t overread = planar || channels % lanes == 0 ? 0 : kOverread;
  std::int64_t inner_first = first, inner_last = last;
  if (!planar) {
    const Reach inside{std::clamp<std::int64_t>(reach.begin, 0, width),
                       std::clamp<std::int64_t>(reach.end, 0, width)};
    if (ColumnWindow<T>(p.input, planar, multiplier, inside, 1, overread).in_place) {
      reach = inside;
      const std::int64_t low = -columns.base.front(), room = width - columns.base.back();
      inner_first = std::clamp<std::int64_t>(low <= 0 ? 0 : divide_up(low, columns.in_step), first, last);
      inner_last =
          std::clamp<std::int64_t>(room <= 0 ? 0 : divide_up(room, columns.in_step), inner_first, last);
    }
  }
  const ColumnWindow<T> x(p.input, planar, planar ? 1 : multiplier, reach, columns.in_step, overread);
  const ColumnWindow<T> g(p.grad_output, planar, 1, {first, last}, 1, overread);
  std::vector<std::int64_t> offsets;
  for (const std::int64_t base : columns.base) {
    offsets.push_back(x.offset(first * columns.in_step + base - reach.begin));
  }
  zeros_size = std::max(zeros_size, g.row_size);
  strips.push_back({first, last, x, g, std::move(offsets), inner_first, inner_last});
}

template <class T>
void WeightPlan<T>::cut_parts() {
  constexpr std::int64_t element = sizeof(T);
  const std::int64_t image_bytes =
      (geometry.in.h * geometry.in.w + geometry.out.h * geometry.out.w) * channels * element;
  channels_per_task = channels;
  if (planar) {
    // A task takes neighbouring channels whose accumulators fit the first-level cache.
    const std::int64_t accumulators = (taps + 1) * lanes * element;
    const std::int64_t plane = std::max<std::int64_t>(image_bytes / channels, 1);
    channels_per_task =
        std::clamp<std::int64_t>(std::min((12 << 10) / accumulators, kSecondLevel / plane), 1, channels);
  }
  channel_tasks = divide_up(channels, channels_per_task);
  const std::int64_t task_image_bytes = image_bytes / channel_tasks;
  const std::int64_t pieces = std::clamp<std::int64_t>(
      task_image_bytes / kTaskBytes, 1, std::max<std::int64_t>(1, kMostParts / geometry.batch));
  rows_per_part = round_up(divide_up(row_count, pieces), kSharedRows);
  row_parts = divide_up(row_count, rows_per_part);
  if (row_parts == 1) {
    images_per_part = std::max<std::int64_t>(kTaskBytes / std::max<std::int64_t>(task_image_bytes, 1), 1);
    images_per_part = std::max(images_per_part, divide_up(geometry.batch, kMostParts));
    // Few tasks would leave threads idle.
    images_per_part =
        std::min(images_per_part, std::max<std::int64_t>(1, geometry.batch * channel_tasks / 16));
  }
  image_parts = divide_up(geometry.batch, images_per_part);
}

template class WeightPlan<float>;
template class WeightPlan<double>;

}  // namespace lamella::cpu
