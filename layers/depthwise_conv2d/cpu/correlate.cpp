#include "layers/depthwise_conv2d/cpu/correlate.h"

#include <algorithm>

#include "core/parallel.h"
#include "layers/depthwise_conv2d/cpu/correlate_plan.h"
#include "layers/depthwise_conv2d/cpu/rounding.h"
#include "layers/depthwise_conv2d/cpu/rows.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"

namespace lamella::cpu {
namespace {

// What is worked on at a time: rows [first, last) of every row class, columns [left, right) of every column
// class.
struct Block {
  std::int64_t n, channel;
  std::int64_t first, last;
  std::int64_t left, right;
};

// One task: its buffers and loops.
template <class T>
class Worker {
 public:
  Worker(const CorrelationPlan<T>& plan, const Strip<T>& strip, ScratchPlan& scratch);
  static void reserve(const CorrelationPlan<T>& plan, const Strip<T>& strip, ScratchPlan& scratch);
  void run(std::int64_t first_plane, std::int64_t last_plane, std::int64_t first_row, std::int64_t last_row);

 private:
  void run_rows(Block block, bool last_of_task);
  void look_ahead(std::int64_t row, const T** next);
  void run_classes(const Block& block, std::int64_t weight_channel, std::int64_t table_begin,
                   bool accumulate);
  void run_columns(const Block& block, std::size_t column_class, bool consecutive, CorrelateArgs<T> args);
  void call(const Block& block, const AxisTaps& columns, std::int64_t left, std::int64_t right,
            bool consecutive, CorrelateArgs<T>& args);
  void store(const Block& block);

  std::byte* target_at(const Block& block, std::int64_t row, std::int64_t column) const {
    const Strides& s = p_.target.strides;
    return static_cast<std::byte*>(p_.target.data) +
           (block.n * s[0] + block.channel * s[1] + row * s[2] + column * s[3]) *
               static_cast<std::int64_t>(size_of(p_.target.dtype));
  }
  T* line(std::int64_t row_class, std::int64_t row) const {
    return lines_ + (row_class * plan_.block_rows + row) * plan_.line_size;
  }
  // Planar lines hold one column class after the other.
  std::int64_t line_phase() const { return round_up(plan_.column_count, kOverread); }

  const CorrelationPlan<T>& plan_;
  const Correlation& p_;
  const Strip<T>& strip_;
  T* zeros_;
  const T** table_;  // table_rows, and rows_ahead more
  T** out_;
  std::int64_t* tap_rows_;
  T* lines_;
  RowRing<T> ring_;
  const std::byte* ahead_ = nullptr;
  const std::byte* ahead_end_ = nullptr;
};

template <class T>
void Worker<T>::reserve(const CorrelationPlan<T>& plan, const Strip<T>& strip, ScratchPlan& scratch) {
  scratch.reserve<T>(plan.zeros_size);
  scratch.reserve<T*>(plan.table_rows + plan.rows_ahead);
  scratch.reserve<T*>(plan.block_rows);
  scratch.reserve<std::int64_t>(plan.p.weight.shape[2]);
  scratch.reserve<T>(plan.line_size * plan.row_classes * plan.block_rows + kOverread);
  RowRing<T>::reserve(scratch, strip.window, plan.table_rows);
}

template <class T>
Worker<T>::Worker(const CorrelationPlan<T>& plan, const Strip<T>& strip, ScratchPlan& scratch)
    : plan_(plan),
      p_(plan.p),
      strip_(strip),
      zeros_(scratch.take<T>(plan.zeros_size)),
      table_(scratch.take<const T*>(plan.table_rows + plan.rows_ahead)),
      out_(scratch.take<T*>(plan.block_rows)),
      tap_rows_(scratch.take<std::int64_t>(plan.p.weight.shape[2])),
      lines_(scratch.take<T>(plan.line_size * plan.row_classes * plan.block_rows + kOverread)),
      ring_(scratch, strip.window, plan.table_rows) {
  std::fill_n(zeros_, plan.zeros_size, T{0});
}

template <class T>
void Worker<T>::run(std::int64_t first_plane, std::int64_t last_plane, std::int64_t first_row,
                    std::int64_t last_row) {
  const std::int64_t channels = plan_.planar ? p_.target.shape[1] : 1;
  for (std::int64_t plane = first_plane; plane < last_plane; ++plane) {
    Block block{plane / channels, plane % channels, 0, 0, strip_.first, strip_.last};
    ring_.select(block.n, plan_.planar ? block.channel / p_.repeat * p_.reduce : 0);
    for (block.first = first_row; block.first < last_row; block.first = block.last) {
      block.last = std::min(block.first + plan_.block_rows, last_row);
      run_rows(block, block.last == last_row && plane + 1 == last_plane);
    }
  }
}

template <class T>
void Worker<T>::run_rows(Block block, bool last_of_task) {
  const Reach reach = reach_of(p_.rows, block.first, block.last);
  const std::int64_t sources = plan_.planar ? p_.reduce : 1;
  for (std::int64_t j = 0; j < sources; ++j) {
    const std::int64_t source = plan_.planar ? block.channel * p_.reduce + j : 0;
    if (sources > 1) ring_.select(block.n, source);
    ring_.rows(reach.begin, reach.end, zeros_, table_);
    ahead_ = ahead_end_ = nullptr;
    const T** const next = table_ + (reach.end - reach.begin);
    if (last_of_task) {
      std::fill_n(next, plan_.rows_ahead, zeros_);
    } else {
      look_ahead(reach.end, next);
    }
    for (block.left = strip_.first; block.left < strip_.last; block.left = block.right) {
      block.right = std::min(block.left + plan_.piece_columns, strip_.last);
      run_classes(block, source, reach.begin, j > 0 || (plan_.write_in_place && p_.accumulate));
      if (!plan_.write_in_place && j + 1 == sources) store(block);
    }
  }
}

// What the next block will read first, from source row `row` on. Channels-last loops look it up in the table.
template <class T>
void Worker<T>::look_ahead(std::int64_t row, const T** next) {
  const std::int64_t height = p_.source.shape[2];
  if (!plan_.planar) {
    for (std::int64_t i = 0; i < plan_.rows_ahead; ++i) {
      next[i] = reinterpret_cast<const T*>(ring_.address(std::clamp<std::int64_t>(row + i, 0, height - 1)));
    }
    return;
  }
  if (p_.source.strides[3] != 1) return;
  ahead_ = ring_.address(std::min(row, height));
  ahead_end_ = ahead_ + plan_.block_rows * p_.rows[0].in_step * p_.source.strides[2] *
                            static_cast<std::int64_t>(size_of(p_.source.dtype));
}

template <class T>
void Worker<T>::run_classes(const Block& block, std::int64_t weight_channel, std::int64_t table_begin,
                            bool accumulate) {
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
  for (std::size_t a = 0; a < p_.rows.size(); ++a) {
    const AxisTaps& rows = p_.rows[a];
    const std::int64_t end = std::min(block.last, rows.count);
    if (block.first >= end) continue;
    args.row_count = end - block.first;
    args.row_step = rows.in_step;
    args.taps_h = rows.taps();
    for (std::int64_t t = 0; t < args.taps_h; ++t) {
      tap_rows_[t] = rows.base[static_cast<std::size_t>(t)] + block.first * rows.in_step - table_begin;
    }
    args.offsets = strip_.offsets.data();
    for (std::size_t b = 0; b < p_.columns.size(); ++b) {
      const AxisTaps& columns = p_.columns[b];
      args.weights =
          plan_.taps.weights(static_cast<std::int64_t>(a), static_cast<std::int64_t>(b), weight_channel);
      args.taps_w = columns.taps();
      for (std::int64_t i = 0; i < args.row_count; ++i) {
        if (plan_.write_in_place) {
          out_[i] = reinterpret_cast<T*>(target_at(block, rows.out_first + (block.first + i) * rows.out_step,
                                                   columns.out_first + block.left * columns.out_step));
        } else {
          out_[i] = line(static_cast<std::int64_t>(a), i) +
                    static_cast<std::int64_t>(b) * (plan_.planar ? line_phase() : plan_.channels);
        }
      }
      run_columns(block, b, rows.consecutive(), args);
      args.offsets += args.taps_w;
    }
  }
}

// Splits off the columns whose taps do not all lie inside a row that is read in place.
template <class T>
void Worker<T>::run_columns(const Block& block, std::size_t column_class, bool consecutive,
                            CorrelateArgs<T> args) {
  const AxisTaps& columns = p_.columns[column_class];
  const std::int64_t right = std::min(block.right, columns.count);
  if (block.left >= right) return;
  args.in_column_step = strip_.window.column_size * columns.in_step;
  args.out_column_step = columns.out_step * (plan_.write_in_place ? p_.target.strides[3] : plan_.channels);
  args.ahead = ahead_;
  args.ahead_end = ahead_end_;
  ahead_ = ahead_end_ = nullptr;
  if (plan_.planar || !strip_.window.in_place || columns.base.empty()) {
    return call(block, columns, block.left, right, consecutive, args);
  }
  const std::int64_t width = p_.source.shape[3], room = width - columns.base.back();
  const std::int64_t inner_left = std::clamp(
      columns.base.front() >= 0 ? 0 : divide_up(-columns.base.front(), columns.in_step), block.left, right);
  const std::int64_t inner_right =
      std::clamp(room <= 0 ? 0 : divide_up(room, columns.in_step), inner_left, right);
  args.rows_ahead = plan_.rows_ahead > 0;
  for (std::int64_t column = block.left; column < right;) {
    if (column == inner_left && inner_left < inner_right) {
      call(block, columns, inner_left, inner_right, consecutive, args);
      column = inner_right;
      continue;
    }
    CorrelateArgs<T> edge = args;
    std::int64_t first = 0, last = args.taps_w;
    const auto source = [&](std::int64_t tap) {
      return column * columns.in_step + columns.base[static_cast<std::size_t>(tap)];
    };
    while (first < last && source(first) < 0) ++first;
    while (last > first && source(last - 1) >= width) --last;
    edge.offsets += first;
    edge.taps_w = last - first;
    edge.weights += first * args.taps_h * args.weight_step;
    call(block, columns, column, column + 1, consecutive, edge);
    ++column;
  }
}

template <class T>
void Worker<T>::call(const Block& block, const AxisTaps& columns, std::int64_t left, std::int64_t right,
                     bool consecutive, CorrelateArgs<T>& args) {
  args.columns = right - left;
  args.first_in = (left - strip_.first) * (plan_.planar ? 1 : strip_.window.column_size * columns.in_step);
  args.first_out = (left - block.left) * args.out_column_step;
  const auto pick = plan_.planar ? planar_loop<T> : channels_last_loop<T>;
  pick(args.taps_h, args.taps_w, args.row_step, consecutive)(args);
}

template <class T>
void Worker<T>::store(const Block& block) {
  const std::int64_t classes = plan_.column_classes, first_column = block.left * classes;
  StoreArgs<T> args;
  args.phases = classes;
  args.phase_size = line_phase();
  args.columns = std::min(block.right * classes, p_.target.shape[3]) - first_column;
  args.channels = plan_.planar ? 1 : p_.target.shape[1];
  args.reduce = plan_.planar ? 1 : p_.reduce;
  args.dtype = p_.target.dtype;
  args.out_column_step = p_.target.strides[3];
  args.accumulate = p_.accumulate;
  args.stream = plan_.stream;
  if (plan_.collect && plan_.planar) {  // the rows follow each other without gaps, here and there
    args.source = line(0, 0);
    args.out = target_at(block, block.first, 0);
    args.columns *= block.last - block.first;
    return store_row(args);
  }
  for (std::int64_t i = block.first; i < block.last; ++i) {
    for (std::size_t a = 0; a < p_.rows.size(); ++a) {
      const AxisTaps& rows = p_.rows[a];
      if (i >= rows.count) continue;
      args.source = line(static_cast<std::int64_t>(a), i - block.first);
      args.out = target_at(block, rows.out_first + i * rows.out_step, first_column);
      store_row(args);
    }
  }
}

template <class T>
void run(const Correlation& problem) {
  const CorrelationPlan<T> plan(problem);
  const std::int64_t strips = static_cast<std::int64_t>(plan.strips.size());
  detail::parallel_for(plan.tasks(), 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t rows = task % plan.row_tasks, group = task / plan.row_tasks / strips;
    const Strip<T>& strip = plan.strips[static_cast<std::size_t>(task / plan.row_tasks % strips)];
    ScratchPlan scratch;
    Worker<T>::reserve(plan, strip, scratch);
    scratch.allocate();
    Worker<T> worker(plan, strip, scratch);
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
