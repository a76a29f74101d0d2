#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "layers/depthwise_conv2d/cpu/packing.h"
#include "layers/depthwise_conv2d/cpu/relayout.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"
#include "layers/depthwise_conv2d/cpu/weight_plan.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace lamella::cpu {
namespace {

template <class T>
class Worker {
 public:
  Worker(const WeightPlan<T>& plan, ScratchPlan& scratch);
  static void reserve(const WeightPlan<T>& plan, ScratchPlan& scratch);
  void run(std::int64_t image_part, std::int64_t row_part, std::int64_t channel_task, T* sums);

 private:
  void weight_block(std::size_t strip, std::int64_t first, std::int64_t last);
  void weight_channels(const WeightStrip<T>& strip, std::size_t row_class, GradientArgs<T> args);
  void weight_taps(std::size_t row_class, GradientArgs<T> args, const std::vector<std::int64_t>& offsets);
  void bias_rows(std::size_t strip, std::int64_t first, std::int64_t last);

  const WeightPlan<T>& plan_;
  T* zeros_;
  const T** x_table_;
  const T** g_table_;
  const T** x_class_;  // the rows of one residue class
  std::int64_t* tap_rows_;
  T* sums_;  // planar: [channel][tap][lane] of this task
  T* current_ = nullptr;
  std::int64_t sum_step_;
  std::vector<RowRing<T>> x_rings_, g_rings_;
};

template <class T>
void Worker<T>::reserve(const WeightPlan<T>& plan, ScratchPlan& scratch) {
  scratch.reserve<T>(plan.zeros_size);
  scratch.reserve<T*>(plan.x_slots);
  scratch.reserve<T*>(plan.g_slots);
  scratch.reserve<T*>(plan.block_rows);
  scratch.reserve<std::int64_t>(plan.geometry.kernel.h);
  scratch.reserve<T>(plan.planar ? plan.channels_per_task * (plan.taps + 1) * plan.lanes : 0);
  for (const WeightStrip<T>& strip : plan.strips) {
    RowRing<T>::reserve(scratch, strip.x, plan.x_slots);
    RowRing<T>::reserve(scratch, strip.g, plan.g_slots);
  }
}

template <class T>
Worker<T>::Worker(const WeightPlan<T>& plan, ScratchPlan& scratch)
    : plan_(plan),
      zeros_(scratch.take<T>(plan.zeros_size)),
      x_table_(scratch.take<const T*>(plan.x_slots)),
      g_table_(scratch.take<const T*>(plan.g_slots)),
      x_class_(scratch.take<const T*>(plan.block_rows)),
      tap_rows_(scratch.take<std::int64_t>(plan.geometry.kernel.h)),
      sums_(scratch.take<T>(plan.planar ? plan.channels_per_task * (plan.taps + 1) * plan.lanes : 0)),
      sum_step_(plan.planar ? plan.lanes : plan.padded_channels) {
  std::fill_n(zeros_, plan.zeros_size, T{0});
  for (const WeightStrip<T>& strip : plan.strips) {
    x_rings_.emplace_back(scratch, strip.x, plan.x_slots);
    g_rings_.emplace_back(scratch, strip.g, plan.g_slots);
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
  const std::int64_t block = plan_.block_rows;
  for (std::int64_t n = image_part * plan_.images_per_part; n < last_image; ++n) {
    for (std::int64_t channel = first_channel; channel < last_channel; ++channel) {
      current_ = plan_.planar ? sums_ + (channel - first_channel) * per_channel : sums;
      for (std::size_t s = 0; s < x_rings_.size(); ++s) {
        x_rings_[s].select(n, plan_.planar ? channel / plan_.multiplier : 0);
        g_rings_[s].select(n, plan_.planar ? channel : 0);
        for (std::int64_t first = first_row; first < last_row && plan_.p.want_weight; first += block) {
          const std::int64_t last = std::min(first + block, last_row);
          weight_block(s, first, last);
        }
        for (std::int64_t first = first_g; first < last_g && plan_.p.want_bias; first += block) {
          bias_rows(s, first, std::min(first + block, last_g));
        }
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
void Worker<T>::weight_block(std::size_t s, std::int64_t first, std::int64_t last) {
  const WeightStrip<T>& strip = plan_.strips[s];
  const std::int64_t step = plan_.rows[0].out_step;
  const std::int64_t x_end = std::min(last * step, plan_.geometry.in.h);
  const Reach reach = reach_of(plan_.rows, first, last);
  x_rings_[s].rows(first * step, x_end, zeros_, x_table_);
  g_rings_[s].rows(reach.begin, reach.end, zeros_, g_table_);
  for (std::size_t a = 0; a < plan_.rows.size(); ++a) {
    const AxisTaps& axis = plan_.rows[a];
    GradientArgs<T> args;
    args.row_count = std::min(last, axis.count) - first;
    if (args.row_count <= 0) continue;
    for (std::int64_t i = 0; i < args.row_count; ++i) x_class_[i] = x_table_[i * step + axis.out_first];
    for (std::int64_t t = 0; t < axis.taps(); ++t) {
      tap_rows_[t] = axis.base[static_cast<std::size_t>(t)] + first - reach.begin;
    }
    args.x_rows = x_class_;
    args.g_rows = g_table_;
    args.consecutive = axis.consecutive();
    args.columns = strip.last - strip.first;
    args.sum_step = sum_step_;
    args.x_column_step = strip.x.column_size * plan_.columns.in_step;
    args.g_column_step = strip.g.column_size;
    args.inner_first = strip.inner_first - strip.first;
    args.inner_last = strip.inner_last - strip.first;
    args.first_column = strip.first;
    args.column_stride = plan_.columns.in_step;
    args.source_columns = plan_.geometry.in.w;
    weight_channels(strip, a, args);
  }
}

template <class T>
void Worker<T>::weight_channels(const WeightStrip<T>& strip, std::size_t row_class, GradientArgs<T> args) {
  const std::int64_t depth = plan_.planar ? 1 : plan_.channels;
  for (std::int64_t c = 0; c < depth; c += plan_.lanes) {
    args.x_offset = args.g_offset = args.sum_offset = c;
    weight_taps(row_class, args, strip.offsets);
  }
}

template <class T>
void Worker<T>::weight_taps(std::size_t row_class, GradientArgs<T> args,
                            const std::vector<std::int64_t>& offsets) {
  const std::int64_t kernel_w = plan_.geometry.kernel.w;
  const AxisTaps& axis = plan_.rows[row_class];
  T* sums[kMaxRowTaps];
  args.sums = sums;
  for (const TapTile<T>& tile : plan_.tiles[row_class]) {
    args.tap_rows = tap_rows_ + tile.first_row;
    args.offsets = offsets.data() + tile.first_column;
    args.tap_columns = plan_.columns.base.data() + tile.first_column;
    for (std::int64_t a = 0; a < tile.row_count; ++a) {
      const std::int64_t kh = axis.tap[static_cast<std::size_t>(tile.first_row + a)];
      sums[a] = current_ + (kh * kernel_w + tile.first_column) * sum_step_;
    }
    tile.loop(args);
  }
}

template <class T>
void Worker<T>::bias_rows(std::size_t s, std::int64_t first, std::int64_t last) {
  const WeightStrip<T>& strip = plan_.strips[s];
  g_rings_[s].rows(first, last, zeros_, g_table_);
  T* sum = current_ + plan_.taps * sum_step_;
  GradientArgs<T> args;
  args.g_rows = g_table_;
  args.row_count = last - first;
  args.sums = &sum;
  args.columns = strip.last - strip.first;
  args.g_column_step = strip.g.column_size;
  const std::int64_t depth = plan_.planar ? 1 : plan_.channels;
  for (std::int64_t c = 0; c < depth; c += plan_.lanes) {
    args.g_offset = c;
    args.sum_offset = c;
    sum_loop<T>(plan_.planar)(args);
  }
}

template <class T>
void run(const WeightProblem& problem, const detail::TensorView& grad_weight, bool add_weight,
         const detail::TensorView& grad_bias, bool add_bias) {
  const WeightPlan<T> plan(problem);
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
  if (prefer_relayout(geometry, input, grad_output)) {
    ChannelsLast x(input), y(grad_output);
    return depthwise_conv2d_backward_weight(geometry, y.load().view(), x.load().view(), grad_weight,
                                            weight_write, grad_bias, bias_write);
  }
  const WeightProblem problem{geometry, grad_output, input, grad_weight.data != nullptr,
                              grad_bias.data != nullptr};
  if (input.dtype == DType::Float64) {
    run<double>(problem, grad_weight, add_weight, grad_bias, add_bias);
  } else {
    run<float>(problem, grad_weight, add_weight, grad_bias, add_bias);
  }
}

}  // namespace lamella::cpu
