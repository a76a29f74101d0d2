#pragma once

#include <cstdint>
#include <vector>

#include "lamella/layers/conv_geometry.h"
#include "layers/depthwise_conv2d/cpu/source_rows.h"
#include "layers/depthwise_conv2d/cpu/vector_code.h"
#include "tensor/view.h"

namespace lamella::cpu {

struct WeightProblem {
  const Conv2dGeometry& geometry;
  const detail::ConstTensorView& grad_output;
  const detail::ConstTensorView& input;
  bool want_weight;
  bool want_bias;
};

/// Output columns [first, last) with the windows of x and g that they read.
template <class T>
struct WeightStrip {
  std::int64_t first;
  std::int64_t last;
  ColumnWindow<T> x;
  ColumnWindow<T> g;
  std::vector<std::int64_t> offsets;  ///< where an x row holds what each column tap of output `first` reads
  /// Outputs [inner_first, inner_last) have all taps inside the x row; the loop checks the others.
  std::int64_t inner_first;
  std::int64_t inner_last;
};

/// Taps that one call of a loop works on, and that loop.
template <class T>
struct TapTile {
  std::int64_t first_row, row_count;  ///< of the row class
  std::int64_t first_column, column_count;
  GradientFn<T> loop;
};

/// How a weight gradient is cut, from the shapes alone. Each part of the pixels (images x rows) has its own
/// sums, [tap][channel] (channels-last) or [channel][tap] (planar), the bias's after the last tap; they are
/// added in the order of the parts. x rows are what is dealt out: each row of each residue class meets the
/// rows of g that read it.
template <class T>
class WeightPlan {
 public:
  explicit WeightPlan(const WeightProblem& problem);

  const WeightProblem& p;
  const Conv2dGeometry& geometry;
  const bool planar;
  const std::int64_t channels, padded_channels, multiplier;
  const std::int64_t taps;  // of the kernel
  const std::int64_t lanes;
  const std::vector<AxisTaps> rows;
  const AxisTaps columns;
  std::vector<std::vector<TapTile<T>>> tiles;  // of each row class
  std::int64_t row_count = 0;
  std::vector<WeightStrip<T>> strips;
  std::int64_t images_per_part = 1, rows_per_part = 0, image_parts = 1, row_parts = 1;
  std::int64_t channels_per_task = 0, channel_tasks = 1;
  std::int64_t block_rows = 0, x_slots = 0, g_slots = 0, zeros_size = 0;

  std::int64_t parts() const { return image_parts * row_parts; }
  std::int64_t part_size() const { return (taps + 1) * padded_channels; }
  std::int64_t sum_index(std::int64_t channel, std::int64_t tap) const {
    return planar ? channel * (taps + 1) + tap : tap * padded_channels + channel;
  }

 private:
  void cut_taps();
  void choose_block();
  void cut_columns();
  void add_strip(std::int64_t first, std::int64_t last);
  void cut_parts();
};

}  // namespace lamella::cpu
