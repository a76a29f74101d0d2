#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "layers/depthwise_conv2d/cpu/packing.h"
#include "layers/depthwise_conv2d/cpu/source_rows.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace lamella::cpu {
namespace {

constexpr std::int64_t divide_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit; }
constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return divide_up(value, unit) * unit;
}

struct Problem {
  const Conv2dGeometry& geometry;
  const detail::ConstTensorView& grad_output;
  const detail::ConstTensorView& input;
  bool want_weight;
  bool want_bias;
};

// Output columns [first, last) with the windows of x and g that they read.
template <class T>
struct Segment {
  std::int64_t first;
  std::int64_t last;
  ColumnWindow<T> x;
  ColumnWindow<T> g;
  std::vector<std::int64_t> offsets;
};

// Taps first … first + count − 1, worked on together.
struct TapGroup {
  std::int64_t first;
  std::int64_t count;
};
std::vector<TapGroup> group_taps(std::int64_t taps, std::int64_t most) {
  std::vector<TapGroup> groups;
  const std::int64_t pieces = divide_up(taps, most);
  for (std::int64_t i = 0; i < pieces; ++i) {
    const std::int64_t first = groups.empty() ? 0 : groups.back().first + groups.back().count;
    groups.push_back({first, divide_up(taps - first, pieces - i)});
  }
  return groups;
}

// The cut. Each part of the pixels (images x rows x strip of columns) has its own sums, [tap][channel]
// (channels-last) or [channel][tap] (planar), the bias's after the last tap; they are added in the order of
// the parts. x rows are what is dealt out: each row of each residue class meets the rows of g that read it.
template <class T>
class Plan {
 public:
  explicit Plan(const Problem& problem);

  const Problem& p;
  const Conv2dGeometry& geometry;
  const bool planar;
  const std::int64_t channels, padded_channels, multiplier;
  const std::int64_t taps;  // of the kernel
  const std::int64_t lanes;
  const std::vector<AxisTaps> rows;
  const std::vector<AxisTaps> columns;
  std::int64_t row_count = 0;
  std::vector<Segment<T>> segments;
  std::int64_t images_per_part = 1, rows_per_part = 0, image_parts = 1, row_parts = 1;
  std::int64_t channels_per_task = 0, channel_tasks = 1;
  std::int64_t block_rows = 0, block_columns = 0, x_slots = 0, g_slots = 0, zeros_size = 0;

  std::int64_t parts() const { return image_parts * row_parts; }
  std::int64_t part_size() const { return (taps + 1) * padded_channels; }
  std::int64_t sum_index(std::int64_t channel, std::int64_t tap) const {
    return planar ? channel * (taps + 1) + tap : tap * padded_channels + channel;
  }

 private:
  void add_segment(std::int64_t first, std::int64_t last);
  void cut_columns();
  void cut_parts();
};

template <class T>
Plan<T>::Plan(const Problem& problem)
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
                             geometry.dilation.w)) {
  for (const AxisTaps& axis : rows) row_count = std::max(row_count, axis.count);
  cut_columns();
  cut_parts();
}

template <class T>
void Plan<T>::add_segment(std::int64_t first, std::int64_t last) {
  if (first >= last) return;
  const AxisTaps& axis = columns[0];
  const Reach reach = reach_of(columns, first, last);
  const std::int64_t overread = planar ? 0 : kOverread;
  const ColumnWindow<T> x(p.input, planar, planar ? 1 : multiplier, reach, axis.in_step, overread);
  const ColumnWindow<T> g(p.grad_output, planar, 1, {first, last}, 1, overread);
  std::vector<std::int64_t> offsets;
  for (const std::int64_t base : axis.base)
    offsets.push_back(x.offset(first * axis.in_step + base - reach.begin));
  segments.push_back({first, last, x, g, std::move(offsets)});
}

template <class T>
void Plan<T>::cut_columns() {
  const AxisTaps& axis = columns[0];
  const std::int64_t inner_first =
      std::clamp<std::int64_t>(divide_up(-axis.base.front(), axis.in_step), 0, axis.count);
  const std::int64_t room = geometry.in.w - 1 - axis.base.back();
  const std::int64_t inner_last =
      std::clamp<std::int64_t>(room < 0 ? 0 : room / axis.in_step + 1, 0, axis.count);
  const bool readable = ColumnWindow<T>(p.input, planar, multiplier, {0, 1}, 1, 0).in_place;
  if (planar || !readable || inner_last - inner_first < 4) return add_segment(0, axis.count);
  add_segment(0, inner_first);
  add_segment(inner_first, inner_last);
  add_segment(inner_last, axis.count);
}

template <class T>
void Plan<T>::cut_parts() {
  constexpr std::int64_t element = sizeof(T);
  const std::int64_t step = rows[0].out_step;
  for (const Segment<T>& segment : segments) zeros_size = std::max(zeros_size, segment.g.row_size);

  const std::int64_t image_bytes =
      (geometry.in.h * geometry.in.w + geometry.out.h * geometry.out.w) * channels * element;
  constexpr std::int64_t kMostParts = 64;
  if (planar) {
    // A task takes neighbouring channels whose accumulators fit the first-level cache.
    const std::int64_t accumulators = (taps + 1) * lanes * element;
    const std::int64_t plane = image_bytes / channels;
    channels_per_task = std::clamp<std::int64_t>(
        std::min((12 << 10) / accumulators, (256 << 10) / std::max<std::int64_t>(plane, 1)), 1, channels);
  } else {
    channels_per_task = channels;
  }
  channel_tasks = divide_up(channels, channels_per_task);
  const std::int64_t task_image_bytes = image_bytes / channel_tasks;
  const std::int64_t pieces = std::clamp<std::int64_t>(
      task_image_bytes / (512 << 10), 1, std::max<std::int64_t>(1, kMostParts / geometry.batch));
  rows_per_part = divide_up(row_count, pieces);
  row_parts = divide_up(row_count, rows_per_part);
  if (row_parts == 1) {
    images_per_part = std::max<std::int64_t>((512 << 10) / std::max<std::int64_t>(task_image_bytes, 1), 1);
    images_per_part = std::max(images_per_part, divide_up(geometry.batch, kMostParts));
    // Few tasks would leave threads idle.
    images_per_part =
        std::min(images_per_part, std::max<std::int64_t>(1, geometry.batch * channel_tasks / 16));
  }
  image_parts = divide_up(geometry.batch, images_per_part);

  std::int64_t row_taps = 1;
  for (const AxisTaps& axis : rows) row_taps = std::max(row_taps, axis.taps());
  if (planar) {
    const std::int64_t row_bytes = (geometry.in.w * step + geometry.out.w) * element;
    block_rows = std::clamp<std::int64_t>((16 << 10) / row_bytes - row_taps, 4, 64);
    block_columns = geometry.out.w;
  } else {
    block_rows = 4;
    const std::int64_t pixel_bytes = channels * element;
    block_columns = std::clamp<std::int64_t>(
        (192 << 10) / (pixel_bytes * (block_rows * step * columns[0].in_step + block_rows + row_taps - 1)), 8,
        std::max<std::int64_t>(8, geometry.out.w));
  }
  block_rows = std::min(block_rows, rows_per_part);
  x_slots = block_rows * step;
  for (std::int64_t first = 0; first < row_count; first += block_rows) {
    const Reach reach = reach_of(rows, first, first + block_rows);
    g_slots = std::max(g_slots, reach.end - reach.begin);
  }
  g_slots = std::max(g_slots, block_rows);
}

template <class T>
class Worker {
 public:
  Worker(const Plan<T>& plan, ScratchPlan& scratch);
  static void reserve(const Plan<T>& plan, ScratchPlan& scratch);
  void run(std::int64_t image_part, std::int64_t row_part, std::int64_t channel_task, T* sums);

 private:
  void weight_block(std::size_t segment, std::int64_t channel, std::int64_t first, std::int64_t last);
  void weight_columns(const Segment<T>& segment, const AxisTaps& axis, GradientArgs<T> args);
  void weight_taps(const AxisTaps& axis, GradientArgs<T> args, const std::vector<std::int64_t>& offsets);
  void bias_rows(std::size_t segment, std::int64_t first, std::int64_t last);

  const Plan<T>& plan_;
  T* zeros_;
  const T** x_table_;
  const T** g_table_;
  const T** x_class_;
  std::int64_t* tap_rows_;
  T* sums_;  // planar: [channel][tap][lane] of this task
  T* current_ = nullptr;
  std::int64_t sum_step_, g_begin_ = 0;
  std::vector<RowRing<T>> x_rings_, g_rings_;
};

template <class T>
void Worker<T>::reserve(const Plan<T>& plan, ScratchPlan& scratch) {
  scratch.reserve<T>(plan.zeros_size);
  scratch.reserve<T*>(plan.x_slots);
  scratch.reserve<T*>(plan.g_slots);
  scratch.reserve<T*>(plan.block_rows);
  scratch.reserve<std::int64_t>(plan.geometry.kernel.h);
  scratch.reserve<T>(plan.planar ? plan.channels_per_task * (plan.taps + 1) * plan.lanes : 0);
  for (const Segment<T>& segment : plan.segments) {
    RowRing<T>::reserve(scratch, segment.x, plan.x_slots);
    RowRing<T>::reserve(scratch, segment.g, plan.g_slots);
  }
}

template <class T>
Worker<T>::Worker(const Plan<T>& plan, ScratchPlan& scratch)
    : plan_(plan),
      zeros_(scratch.take<T>(plan.zeros_size)),
      x_table_(scratch.take<const T*>(plan.x_slots)),
      g_table_(scratch.take<const T*>(plan.g_slots)),
      x_class_(scratch.take<const T*>(plan.block_rows)),
      tap_rows_(scratch.take<std::int64_t>(plan.geometry.kernel.h)),
      sums_(scratch.take<T>(plan.planar ? plan.channels_per_task * (plan.taps + 1) * plan.lanes : 0)),
      sum_step_(plan.planar ? plan.lanes : plan.padded_channels) {
  std::fill_n(zeros_, plan.zeros_size, T{0});
  for (const Segment<T>& segment : plan.segments) {
    x_rings_.emplace_back(scratch, segment.x, plan.x_slots);
    g_rings_.emplace_back(scratch, segment.g, plan.g_slots);
  }
}

template <class T>
void Worker<T>::run(std::int64_t image_part, std::int64_t row_part, std::int64_t channel_task, T* sums) {
  const Conv2dGeometry& g = plan_.geometry;
  const std::int64_t first_channel = channel_task * plan_.channels_per_task;
  const std::int64_t last_channel =
      plan_.planar ? std::min(first_channel + plan_.channels_per_task, plan_.channels) : first_channel + 1;
  const std::int64_t per_channel = (plan_.taps + 1) * plan_.lanes;
  if (plan_.planar) {
    std::fill_n(sums_, (last_channel - first_channel) * per_channel, T{0});
  } else {
    std::fill_n(sums, plan_.part_size(), T{0});
  }
  const std::int64_t last_image = std::min((image_part + 1) * plan_.images_per_part, g.batch);
  const std::int64_t first_row = row_part * plan_.rows_per_part;
  const std::int64_t last_row = std::min(first_row + plan_.rows_per_part, plan_.row_count);
  const std::int64_t first_g = g.out.h * row_part / plan_.row_parts,
                     last_g = g.out.h * (row_part + 1) / plan_.row_parts;
  for (std::int64_t n = image_part * plan_.images_per_part; n < last_image; ++n) {
    for (std::int64_t channel = first_channel; channel < last_channel; ++channel) {
      current_ = plan_.planar ? sums_ + (channel - first_channel) * per_channel : sums;
      for (std::size_t s = 0; s < x_rings_.size(); ++s) {
        x_rings_[s].select(n, plan_.planar ? channel / plan_.multiplier : 0);
        g_rings_[s].select(n, plan_.planar ? channel : 0);
      }
      for (std::int64_t first = first_row; first < last_row && plan_.p.want_weight;
           first += plan_.block_rows) {
        const std::int64_t last = std::min(first + plan_.block_rows, last_row);
        for (std::size_t s = 0; s < x_rings_.size(); ++s) weight_block(s, channel, first, last);
      }
      for (std::int64_t first = first_g; first < last_g && plan_.p.want_bias; first += plan_.block_rows) {
        const std::int64_t last = std::min(first + plan_.block_rows, last_g);
        for (std::size_t s = 0; s < x_rings_.size(); ++s) bias_rows(s, first, last);
      }
    }
  }
  if (!plan_.planar) return;
  for (std::int64_t channel = first_channel; channel < last_channel; ++channel) {
    for (std::int64_t tap = 0; tap <= plan_.taps; ++tap) {
      const T* lanes = sums_ + (channel - first_channel) * per_channel + tap * plan_.lanes;
      T sum = 0;
      for (std::int64_t lane = 0; lane < plan_.lanes; ++lane) sum += lanes[lane];
      sums[plan_.sum_index(channel, tap)] = sum;
    }
  }
}

template <class T>
void Worker<T>::weight_block(std::size_t s, std::int64_t, std::int64_t first, std::int64_t last) {
  const Segment<T>& segment = plan_.segments[s];
  const std::int64_t step = plan_.rows[0].out_step;
  const std::int64_t x_end = std::min(last * step, plan_.geometry.in.h);
  const Reach reach = reach_of(plan_.rows, first, last);
  x_rings_[s].rows(first * step, x_end, zeros_, x_table_);
  g_rings_[s].rows(reach.begin, reach.end, zeros_, g_table_);
  for (const AxisTaps& axis : plan_.rows) {
    GradientArgs<T> args;
    args.row_count = std::min(last, axis.count) - first;
    if (args.row_count <= 0) continue;
    for (std::int64_t i = 0; i < args.row_count; ++i) x_class_[i] = x_table_[i * step + axis.out_first];
    for (std::int64_t t = 0; t < axis.taps(); ++t) {
      tap_rows_[t] = axis.base[static_cast<std::size_t>(t)] + first - reach.begin;
    }
    args.x_rows = x_class_;
    args.g_rows = g_table_;
    args.sum_step = sum_step_;
    args.x_column_step = segment.x.column_size * plan_.columns[0].in_step;
    args.g_column_step = segment.g.column_size;
    weight_columns(segment, axis, args);
  }
}

template <class T>
void Worker<T>::weight_columns(const Segment<T>& segment, const AxisTaps& axis, GradientArgs<T> args) {
  const std::int64_t width = segment.last - segment.first;
  if (plan_.planar) {
    args.columns = width;
    weight_taps(axis, args, segment.offsets);
    return;
  }
  for (std::int64_t j = 0; j < width; j += plan_.block_columns) {
    args.columns = std::min(plan_.block_columns, width - j);
    for (std::int64_t c = 0; c < plan_.channels; c += plan_.lanes) {
      args.x_offset = j * args.x_column_step + c;
      args.g_offset = j * args.g_column_step + c;
      args.sum_offset = c;
      weight_taps(axis, args, segment.offsets);
    }
  }
}

template <class T>
void Worker<T>::weight_taps(const AxisTaps& axis, GradientArgs<T> args,
                            const std::vector<std::int64_t>& offsets) {
  const std::int64_t kernel_w = plan_.geometry.kernel.w;
  T* sums[kMaxRowTaps];
  args.sums = sums;
  for (const TapGroup& rows : group_taps(axis.taps(), kMaxRowTaps)) {
    args.tap_rows = tap_rows_ + rows.first;
    for (const TapGroup& columns : group_taps(kernel_w, kMaxColumnTaps)) {
      args.offsets = offsets.data() + columns.first;
      for (std::int64_t a = 0; a < rows.count; ++a) {
        const std::int64_t kh = axis.tap[static_cast<std::size_t>(rows.first + a)];
        sums[a] = current_ + (kh * kernel_w + columns.first) * sum_step_;
      }
      gradient_loop<T>(plan_.planar, rows.count, columns.count)(args);
    }
  }
}

template <class T>
void Worker<T>::bias_rows(std::size_t s, std::int64_t first, std::int64_t last) {
  const Segment<T>& segment = plan_.segments[s];
  g_rings_[s].rows(first, last, zeros_, g_table_);
  T* sum = current_ + plan_.taps * sum_step_;
  GradientArgs<T> args;
  args.g_rows = g_table_;
  args.row_count = last - first;
  args.sums = &sum;
  args.columns = segment.last - segment.first;
  args.g_column_step = segment.g.column_size;
  const std::int64_t depth = plan_.planar ? 1 : plan_.channels;
  for (std::int64_t c = 0; c < depth; c += plan_.lanes) {
    args.g_offset = c;
    args.sum_offset = c;
    sum_loop<T>(plan_.planar)(args);
  }
}

template <class T>
void run(const Problem& problem, const detail::TensorView& grad_weight, bool add_weight,
         const detail::TensorView& grad_bias, bool add_bias) {
  const Plan<T> plan(problem);
  std::vector<T> sums(static_cast<std::size_t>(plan.parts() * plan.part_size()));
  detail::parallel_for(plan.parts() * plan.channel_tasks, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t part = task / plan.channel_tasks;
    ScratchPlan scratch;
    Worker<T>::reserve(plan, scratch);
    scratch.allocate();
    Worker<T>(plan, scratch)
        .run(part / plan.row_parts, part % plan.row_parts, task % plan.channel_tasks,
             sums.data() + part * plan.part_size());
  });
  const Conv2dGeometry& g = problem.geometry;
  const auto finish = [&](std::int64_t channel, std::int64_t tap, const detail::TensorView& target,
                          std::int64_t index, bool add) {
    T total = add ? load_as<T>(target, index) : T{0};
    T sum = 0;
    for (std::int64_t part = 0; part < plan.parts(); ++part) {
      sum += sums[static_cast<std::size_t>(part * plan.part_size() + plan.sum_index(channel, tap))];
    }
    store_from(target, index, total + sum);
  };
  detail::parallel_for(plan.channels, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t channel = begin; channel < end; ++channel) {
      for (std::int64_t tap = 0; tap < plan.taps && problem.want_weight; ++tap) {
        const Strides& s = grad_weight.strides;
        finish(channel, tap, grad_weight, channel * s[0] + tap / g.kernel.w * s[2] + tap % g.kernel.w * s[3],
               add_weight);
      }
      if (problem.want_bias) finish(channel, plan.taps, grad_bias, channel * grad_bias.strides[0], add_bias);
    }
  });
}

// An empty batch: the sums are zero.
void clear(const detail::TensorView& target, bool add) {
  if (target.data == nullptr || add) return;
  const bool matrix = target.shape.size() == 4;
  const std::int64_t height = matrix ? target.shape[2] : 1, width = matrix ? target.shape[3] : 1;
  for (std::int64_t c = 0; c < target.shape[0]; ++c) {
    for (std::int64_t i = 0; i < height * width; ++i) {
      const std::int64_t within = matrix ? i / width * target.strides[2] + i % width * target.strides[3] : 0;
      store_from(target, c * target.strides[0] + within, 0.0);
    }
  }
}

}  // namespace

void depthwise_conv2d_backward_weight(const Conv2dGeometry& geometry,
                                      const detail::ConstTensorView& grad_output,
                                      const detail::ConstTensorView& input,
                                      const detail::TensorView& grad_weight,
                                      detail::GradientWrite weight_write, const detail::TensorView& grad_bias,
                                      detail::GradientWrite bias_write) {
  const bool add_weight = weight_write == detail::GradientWrite::Accumulate;
  const bool add_bias = bias_write == detail::GradientWrite::Accumulate;
  if (geometry.batch == 0) {
    clear(grad_weight, add_weight);
    clear(grad_bias, add_bias);
    return;
  }
  const Problem problem{geometry, grad_output, input, grad_weight.data != nullptr, grad_bias.data != nullptr};
  if (input.dtype == DType::Float64) {
    run<double>(problem, grad_weight, add_weight, grad_bias, add_bias);
  } else {
    run<float>(problem, grad_weight, add_weight, grad_bias, add_bias);
  }
}

}  // namespace lamella::cpu
