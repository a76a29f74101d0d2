#include "layers/depthwise_conv2d/cpu/correlate.h"

#include <algorithm>

#include "core/parallel.h"
#include "layers/depthwise_conv2d/cpu/packing.h"
#include "layers/depthwise_conv2d/cpu/rows.h"
#include "layers/depthwise_conv2d/cpu/source_rows.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"

namespace lamella::cpu {
namespace {

constexpr std::int64_t divide_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit; }
constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return divide_up(value, unit) * unit;
}

constexpr std::int64_t kStreamedBytes = 32 << 20;

// Columns [first, last) of every column class, with what they read.
template <class T>
struct Segment {
  std::int64_t first;
  std::int64_t last;
  ColumnWindow<T> window;
  std::vector<std::int64_t> offsets;  // of the taps of all column classes, one after the other
};

// How the work is cut, from the shapes alone: planes (an image and channel; channels-last: an image), strips
// of columns, ranges of rows.
template <class T>
class Plan {
 public:
  explicit Plan(const Correlation& problem);
  std::int64_t tasks() const { return divide_up(planes, planes_per_task) * strips() * row_tasks; }
  std::int64_t strips() const { return static_cast<std::int64_t>(strip_ends.size()); }

  const Correlation& p;
  const bool planar;
  const PackedTaps<T> taps;
  const std::int64_t channels;
  const std::int64_t row_classes, column_classes;
  std::int64_t row_count = 0, column_count = 0;  // of the largest class
  bool write_in_place = false;
  bool collect = false;  // rows of a block are collected side by side and copied in one run
  bool stream = false;   // too much output for the caches: the copy goes past them
  std::vector<Segment<T>> segments;
  std::vector<std::int64_t> strip_ends;  // strip s: segments up to strip_ends[s]
  std::int64_t planes = 0, planes_per_task = 1, rows_per_task = 0, row_tasks = 1;
  std::int64_t block_rows = 0;  // rows of each class that are worked on at a time
  std::int64_t table_rows = 0;  // source rows that these read
  std::int64_t rows_ahead = 0;  // channels-last: rows after these that the loops prefetch
  std::int64_t line_size =
      0;  // elements of an output row on its way to a target that cannot be written directly
  std::int64_t zeros_size = 0;

 private:
  void add_segment(std::int64_t first, std::int64_t last);
  void add_strip(std::int64_t first, std::int64_t last);
  void choose_writing();
  void cut_columns();
  void cut_rows();
};

template <class T>
Plan<T>::Plan(const Correlation& problem)
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

// Output that will not be in the caches when somebody reads it is written past them, which saves reading it
// first. It is collected in a block and copied in one run, because planar rows of any width start anywhere in
// a cache line. Planar rows shorter than a vector are collected too: whole vectors then run over into the
// next row before that is written.
template <class T>
void Plan<T>::choose_writing() {
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
void Plan<T>::add_segment(std::int64_t first, std::int64_t last) {
  if (first >= last) return;
  const Reach reach = reach_of(p.columns, first, last);
  const ColumnWindow<T> window(p.source, planar, p.repeat, reach, p.columns[0].in_step, kOverread);
  std::vector<std::int64_t> offsets;
  for (const AxisTaps& axis : p.columns) {
    for (const std::int64_t base : axis.base)
      offsets.push_back(window.offset(first * axis.in_step + base - reach.begin));
  }
  segments.push_back({first, last, window, std::move(offsets)});
}

// Columns whose taps all lie inside the source are read where they are; the others need padded copies.
template <class T>
void Plan<T>::add_strip(std::int64_t first, std::int64_t last) {
  std::int64_t inner_first = first, inner_last = last;
  for (const AxisTaps& axis : p.columns) {
    if (axis.base.empty()) continue;
    if (axis.base.front() < 0)
      inner_first = std::max(inner_first, divide_up(-axis.base.front(), axis.in_step));
    const std::int64_t room = p.source.shape[3] - 1 - axis.base.back();
    inner_last = std::min(inner_last, room < 0 ? 0 : room / axis.in_step + 1);
  }
  const bool readable = ColumnWindow<T>(p.source, planar, p.repeat, {0, 1}, 1, kOverread).in_place;
  if (planar || !readable || inner_last - inner_first < 4) {
    add_segment(first, last);
  } else {
    add_segment(first, inner_first);
    // What is collected before it is written past the caches should fit the first-level cache.
    const std::int64_t piece =
        4 * row_classes * column_classes * channels * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t width =
        stream ? std::max<std::int64_t>(4, (24 << 10) / piece / 2 * 2) : inner_last - inner_first;
    for (std::int64_t j = inner_first; j < inner_last; j += width)
      add_segment(j, std::min(j + width, inner_last));
    add_segment(inner_last, last);
  }
  strip_ends.push_back(static_cast<std::int64_t>(segments.size()));
}

template <class T>
void Plan<T>::cut_columns() {
  if (planar) return add_strip(0, column_count);
  // Cut wide rows so that the source rows under one block of output rows stay in the second-level cache.
  const std::int64_t height = 3 * p.rows[0].in_step + std::max<std::int64_t>(p.rows[0].taps(), 1);
  const std::int64_t column_bytes = channels * static_cast<std::int64_t>(sizeof(T)) * p.columns[0].in_step;
  const std::int64_t fitting = std::max<std::int64_t>(8, (256 << 10) / (column_bytes * height));
  const std::int64_t width = round_up(divide_up(column_count, divide_up(column_count, fitting)), 2);
  for (std::int64_t first = 0; first < column_count; first += width) {
    add_strip(first, std::min(first + width, column_count));
  }
}

template <class T>
void Plan<T>::cut_rows() {
  constexpr std::int64_t element = sizeof(T);
  std::int64_t copied = 0;
  for (const Segment<T>& segment : segments) {
    zeros_size = std::max(zeros_size, segment.window.row_size);
    if (!segment.window.in_place) copied = std::max(copied, segment.window.row_size);
    const std::int64_t width = segment.last - segment.first;
    if (write_in_place) continue;
    line_size = std::max(line_size, column_classes * (!planar   ? width * channels
                                                      : collect ? width
                                                                : round_up(width, kOverread)));
  }
  const std::int64_t row_bytes = (copied * p.rows[0].in_step + line_size * row_classes) * element;
  const std::int64_t fitting = row_bytes == 0 ? 64 : (planar ? 16 << 10 : 128 << 10) / row_bytes;
  block_rows = stream && !planar ? 4 : std::clamp<std::int64_t>(fitting / 4 * 4, 4, 64);

  const std::int64_t plane_bytes = (p.source.numel() + p.target.numel()) / planes * element;
  const std::int64_t pieces = std::max<std::int64_t>(1, plane_bytes / strips() / (512 << 10));
  rows_per_task = round_up(divide_up(row_count, pieces), 4);
  row_tasks = divide_up(row_count, rows_per_task);
  if (row_tasks == 1) {
    const std::int64_t enough = (256 << 10) / std::max<std::int64_t>(plane_bytes, 1);
    planes_per_task = std::clamp<std::int64_t>(enough, 1, std::max<std::int64_t>(1, planes / 16));
  }
  block_rows = std::min(block_rows, rows_per_task);
  rows_ahead = planar ? 0 : 4 * p.rows[0].in_step;
  for (std::int64_t first = 0; first < row_count; first += block_rows) {
    const Reach reach = reach_of(p.rows, first, first + block_rows);
    table_rows = std::max(table_rows, reach.end - reach.begin);
  }
}

// One task: its buffers and loops.
template <class T>
class Worker {
 public:
  Worker(const Plan<T>& plan, ScratchPlan& scratch, std::int64_t first_segment, std::int64_t last_segment);
  static void reserve(const Plan<T>& plan, ScratchPlan& scratch, std::int64_t first_segment,
                      std::int64_t last_segment);
  void run(std::int64_t first_plane, std::int64_t last_plane, std::int64_t first_row, std::int64_t last_row);

 private:
  void block(std::size_t segment, std::int64_t n, std::int64_t channel, std::int64_t first,
             std::int64_t last);
  void look_ahead(const RowRing<T>& ring, std::int64_t row, const T** next);
  void correlate_classes(const Segment<T>& segment, std::int64_t n, std::int64_t channel,
                         std::int64_t weight_channel, std::int64_t first, std::int64_t last,
                         std::int64_t table_begin, bool accumulate);
  void store(const Segment<T>& segment, std::int64_t n, std::int64_t channel, std::int64_t first,
             std::int64_t last);
  std::byte* target_at(std::int64_t n, std::int64_t channel, std::int64_t row, std::int64_t column) const {
    const Strides& s = p_.target.strides;
    return static_cast<std::byte*>(p_.target.data) +
           (n * s[0] + channel * s[1] + row * s[2] + column * s[3]) *
               static_cast<std::int64_t>(size_of(p_.target.dtype));
  }
  T* line(std::int64_t row_class, std::int64_t row) const {
    return lines_ + (row_class * plan_.block_rows + row) * plan_.line_size;
  }
  std::int64_t line_phase(const Segment<T>& segment) const {
    return round_up(segment.last - segment.first, kOverread);
  }

  const Plan<T>& plan_;
  const Correlation& p_;
  const std::int64_t first_segment_;
  T* zeros_;
  const T** table_;  // table_rows, and rows_ahead more
  T** out_;
  std::int64_t* tap_rows_;
  T* lines_;
  std::vector<RowRing<T>> rings_;
  const std::byte* ahead_ = nullptr;
  const std::byte* ahead_end_ = nullptr;
  bool last_block_ = false;
};

template <class T>
void Worker<T>::reserve(const Plan<T>& plan, ScratchPlan& scratch, std::int64_t first_segment,
                        std::int64_t last_segment) {
  scratch.reserve<T>(plan.zeros_size);
  scratch.reserve<T*>(plan.table_rows + plan.rows_ahead);
  scratch.reserve<T*>(plan.block_rows);
  scratch.reserve<std::int64_t>(plan.p.weight.shape[2]);
  scratch.reserve<T>(plan.line_size * plan.row_classes * plan.block_rows + kOverread);
  for (std::int64_t s = first_segment; s < last_segment; ++s) {
    RowRing<T>::reserve(scratch, plan.segments[static_cast<std::size_t>(s)].window, plan.table_rows);
  }
}

template <class T>
Worker<T>::Worker(const Plan<T>& plan, ScratchPlan& scratch, std::int64_t first_segment,
                  std::int64_t last_segment)
    : plan_(plan),
      p_(plan.p),
      first_segment_(first_segment),
      zeros_(scratch.take<T>(plan.zeros_size)),
      table_(scratch.take<const T*>(plan.table_rows + plan.rows_ahead)),
      out_(scratch.take<T*>(plan.block_rows)),
      tap_rows_(scratch.take<std::int64_t>(plan.p.weight.shape[2])),
      lines_(scratch.take<T>(plan.line_size * plan.row_classes * plan.block_rows + kOverread)) {
  std::fill_n(zeros_, plan.zeros_size, T{0});
  for (std::int64_t s = first_segment; s < last_segment; ++s) {
    rings_.emplace_back(scratch, plan.segments[static_cast<std::size_t>(s)].window, plan.table_rows);
  }
}

template <class T>
void Worker<T>::run(std::int64_t first_plane, std::int64_t last_plane, std::int64_t first_row,
                    std::int64_t last_row) {
  const std::int64_t channels = plan_.planar ? p_.target.shape[1] : 1;
  for (std::int64_t plane = first_plane; plane < last_plane; ++plane) {
    const std::int64_t n = plane / channels, channel = plane % channels;
    for (RowRing<T>& ring : rings_) ring.select(n, plan_.planar ? channel / p_.repeat * p_.reduce : 0);
    for (std::int64_t first = first_row; first < last_row; first += plan_.block_rows) {
      const std::int64_t last = std::min(first + plan_.block_rows, last_row);
      last_block_ = last == last_row && plane + 1 == last_plane;
      for (std::size_t s = 0; s < rings_.size(); ++s) block(s, n, channel, first, last);
    }
  }
}

template <class T>
void Worker<T>::block(std::size_t ring, std::int64_t n, std::int64_t channel, std::int64_t first,
                      std::int64_t last) {
  const Segment<T>& segment = plan_.segments[static_cast<std::size_t>(first_segment_) + ring];
  const Reach reach = reach_of(p_.rows, first, last);
  const std::int64_t sources = plan_.planar ? p_.reduce : 1;
  for (std::int64_t j = 0; j < sources; ++j) {
    if (sources > 1) rings_[ring].select(n, channel * p_.reduce + j);
    rings_[ring].rows(reach.begin, reach.end, zeros_, table_);
    look_ahead(rings_[ring], reach.end, table_ + (reach.end - reach.begin));
    const bool accumulate = j > 0 || (plan_.write_in_place && p_.accumulate);
    correlate_classes(segment, n, channel, plan_.planar ? channel * p_.reduce + j : 0, first, last,
                      reach.begin, accumulate);
  }
  if (!plan_.write_in_place) store(segment, n, channel, first, last);
}

// What the next block will read first: the memory from source row `row` on.
template <class T>
void Worker<T>::look_ahead(const RowRing<T>& ring, std::int64_t row, const T** next) {
  const std::int64_t height = p_.source.shape[2];
  if (plan_.planar) {
    ahead_ = ahead_end_ = nullptr;
    if (last_block_ || p_.source.strides[3] != 1) return;
    ahead_ = ring.address(std::min(row, height));
    ahead_end_ = ahead_ + plan_.block_rows * p_.rows[0].in_step * p_.source.strides[2] *
                              static_cast<std::int64_t>(size_of(p_.source.dtype));
    return;
  }
  if (!ring.window().in_place) return;
  for (std::int64_t i = 0; i < plan_.rows_ahead; ++i) {
    next[i] = reinterpret_cast<const T*>(ring.address(std::clamp<std::int64_t>(row + i, 0, height - 1)));
  }
}

template <class T>
void Worker<T>::correlate_classes(const Segment<T>& segment, std::int64_t n, std::int64_t channel,
                                  std::int64_t weight_channel, std::int64_t first, std::int64_t last,
                                  std::int64_t table_begin, bool accumulate) {
  CorrelateArgs<T> args;
  args.rows = table_;
  args.out = out_;
  args.tap_rows = tap_rows_;
  args.weight_step = plan_.taps.weight_step();
  args.bias = plan_.taps.bias(weight_channel);
  args.channels = plan_.channels;
  args.accumulate = accumulate;
  args.padded_rows =
      plan_.planar && !plan_.write_in_place && (!plan_.collect || plan_.column_count < lane_count<T>());
  args.ahead = ahead_;
  args.ahead_end = ahead_end_;
  args.rows_ahead = !plan_.planar && segment.window.in_place;
  for (std::int64_t a = 0; a < plan_.row_classes; ++a) {
    const AxisTaps& row_axis = p_.rows[static_cast<std::size_t>(a)];
    const std::int64_t end = std::min(last, row_axis.count);
    if (first >= end) continue;
    args.row_count = end - first;
    args.row_step = row_axis.in_step;
    args.taps_h = row_axis.taps();
    for (std::int64_t t = 0; t < args.taps_h; ++t) {
      tap_rows_[t] = row_axis.base[static_cast<std::size_t>(t)] + first * row_axis.in_step - table_begin;
    }
    const CorrelateFn<T> loop =
        correlate_loop<T>(plan_.planar, args.taps_h, args.row_step, row_axis.consecutive());
    args.offsets = segment.offsets.data();
    for (std::int64_t b = 0; b < plan_.column_classes; ++b) {
      const AxisTaps& column_axis = p_.columns[static_cast<std::size_t>(b)];
      args.taps_w = column_axis.taps();
      args.columns = std::min(segment.last, column_axis.count) - segment.first;
      args.weights = plan_.taps.weights(a, b, weight_channel);
      args.in_column_step = segment.window.column_size * column_axis.in_step;
      args.out_column_step =
          column_axis.out_step * (plan_.write_in_place ? p_.target.strides[3] : plan_.channels);
      for (std::int64_t i = first; i < end; ++i) {
        if (plan_.write_in_place) {
          out_[i - first] =
              reinterpret_cast<T*>(target_at(n, channel, row_axis.out_first + i * row_axis.out_step,
                                             column_axis.out_first + segment.first * column_axis.out_step));
        } else {
          out_[i - first] = line(a, i - first) + b * (plan_.planar ? line_phase(segment) : plan_.channels);
        }
      }
      if (args.columns > 0) loop(args);
      args.ahead = args.ahead_end = nullptr;
      args.offsets += args.taps_w;
    }
  }
}

template <class T>
void Worker<T>::store(const Segment<T>& segment, std::int64_t n, std::int64_t channel, std::int64_t first,
                      std::int64_t last) {
  const std::int64_t first_column = segment.first * plan_.column_classes;
  StoreArgs<T> args;
  args.phases = plan_.column_classes;
  args.phase_size = line_phase(segment);
  args.columns = std::min(segment.last * plan_.column_classes, p_.target.shape[3]) - first_column;
  args.channels = plan_.planar ? 1 : p_.target.shape[1];
  args.reduce = plan_.planar ? 1 : p_.reduce;
  args.dtype = p_.target.dtype;
  args.out_column_step = p_.target.strides[3];
  args.accumulate = p_.accumulate;
  args.stream = plan_.stream;
  if (plan_.collect &&
      plan_.planar) {  // the rows of the block follow each other without gaps, here and there
    args.source = line(0, 0);
    args.out = target_at(n, channel, first, 0);
    args.columns *= last - first;
    return store_row(args);
  }
  for (std::int64_t i = first; i < last; ++i) {
    for (std::int64_t a = 0; a < plan_.row_classes; ++a) {
      const AxisTaps& axis = p_.rows[static_cast<std::size_t>(a)];
      if (i >= axis.count) continue;
      args.source = line(a, i - first);
      args.out = target_at(n, channel, axis.out_first + i * axis.out_step, first_column);
      store_row(args);
    }
  }
}

template <class T>
void run(const Correlation& problem) {
  const Plan<T> plan(problem);
  detail::parallel_for(plan.tasks(), 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t rows = task % plan.row_tasks, strip = task / plan.row_tasks % plan.strips();
    const std::int64_t group = task / plan.row_tasks / plan.strips();
    const std::int64_t first_segment = strip == 0 ? 0 : plan.strip_ends[static_cast<std::size_t>(strip - 1)];
    const std::int64_t last_segment = plan.strip_ends[static_cast<std::size_t>(strip)];
    ScratchPlan scratch;
    Worker<T>::reserve(plan, scratch, first_segment, last_segment);
    scratch.allocate();
    Worker<T> worker(plan, scratch, first_segment, last_segment);
    worker.run(group * plan.planes_per_task, std::min((group + 1) * plan.planes_per_task, plan.planes),
               rows * plan.rows_per_task, std::min((rows + 1) * plan.rows_per_task, plan.row_count));
    if (plan.stream) flush_streams();
  });
}

}  // namespace

void correlate(const Correlation& problem) {
  if (problem.target.numel() == 0) return;
  if (problem.source.dtype == DType::Float64) {
    run<double>(problem);
  } else {
    run<float>(problem);
  }
}

}  // namespace lamella::cpu
