#pragma once

#include <cstddef>
#include <cstdint>

#include "lamella/core/dtype.h"

/// The vectorised inner loops, chosen for the CPU at run time. Plain structs of arguments, so that the
/// drivers need no vector header. T is float or double: what is computed in.
namespace lamella::cpu {

/// Elements that a loop may read past the last one it needs: every row must have as many behind it.
inline constexpr std::int64_t kOverread = 16;

/// A block of output rows of a correlation. Two layouts share it. Planar: the vector runs along W, a tap's
/// weight is one number. Channels-last: the vector runs along C, a tap's weight is a vector, and rows are
/// walked column by column.
template <class T>
struct CorrelateArgs {
  const T* const* rows =
      nullptr;  ///< source rows: output row i, tap kh reads rows[i * row_step + tap_rows[kh]]
  T* const* out = nullptr;
  std::int64_t row_count = 0;
  std::int64_t row_step = 1;
  const std::int64_t* tap_rows = nullptr;
  std::int64_t taps_h = 0;
  const std::int64_t* offsets = nullptr;  ///< of each horizontal tap, in elements of a source row
  std::int64_t taps_w = 0;
  const T* weights = nullptr;  ///< [taps_w][taps_h][weight_step]
  std::int64_t weight_step = 1;
  const T* bias = nullptr;  ///< one number (planar) or one per channel; null: zero
  std::int64_t columns = 0;
  std::int64_t first_in = 0;         ///< added to every place in a source row
  std::int64_t first_out = 0;        ///< and in an output row
  std::int64_t channels = 0;         ///< channels-last only, like the two below
  std::int64_t in_column_step = 0;   ///< elements between the sources of neighbouring outputs
  std::int64_t out_column_step = 0;  ///< elements between neighbouring outputs
  bool accumulate = false;           ///< add to what `out` holds
  bool padded_rows = false;          ///< whole vectors may be written at the end of an output row
  const std::byte* ahead = nullptr;  ///< planar: memory to prefetch meanwhile
  const std::byte* ahead_end = nullptr;
  bool rows_ahead = false;  ///< channels-last: prefetch the 4 rows that follow in the table
};

template <class T>
using CorrelateFn = void (*)(const CorrelateArgs<T>&);

/// The loops for kernels of `taps_h` x `taps_w`. `consecutive`: tap_rows ascends by one, which lets rows be
/// shared.
template <class T>
CorrelateFn<T> planar_loop(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step, bool consecutive);
template <class T>
CorrelateFn<T> channels_last_loop(std::int64_t taps_h, std::int64_t taps_w, std::int64_t row_step,
                                  bool consecutive);

/// Adds Σ g · x over a block of rows to up to kMaxRowTaps x kMaxColumnTaps accumulator vectors in memory.
inline constexpr std::int64_t kMaxRowTaps = 3;
inline constexpr std::int64_t kMaxColumnTaps = 3;
template <class T>
struct GradientArgs {
  const T* const* x_rows = nullptr;  ///< one per row
  const T* const* g_rows = nullptr;  ///< row i, row tap a: g_rows[i + tap_rows[a]]
  const std::int64_t* tap_rows = nullptr;
  bool consecutive = false;  ///< tap_rows ascends by one
  std::int64_t row_count = 0;
  const std::int64_t* offsets = nullptr;  ///< of each column tap in an x row
  std::int64_t x_offset = 0;              ///< added to all of them
  std::int64_t g_offset = 0;
  T* const* sums = nullptr;  ///< one pointer per row tap; neighbouring column taps are sum_step apart
  std::int64_t sum_offset = 0;
  std::int64_t sum_step = 0;
  std::int64_t columns = 0;  ///< planar: elements; channels-last: pixels, and the rest is for these only
  std::int64_t x_column_step = 0;
  std::int64_t g_column_step = 0;
  /// Columns [inner_first, inner_last) have all taps inside the x row. For the others, tap b reads column
  /// (first_column + j) * column_stride + tap_columns[b] and is left out where that is not in the row.
  std::int64_t inner_first = 0;
  std::int64_t inner_last = 0;
  std::int64_t first_column = 0;
  std::int64_t column_stride = 1;
  std::int64_t source_columns = 0;  ///< of the x row
  const std::int64_t* tap_columns = nullptr;
};
template <class T>
using GradientFn = void (*)(const GradientArgs<T>&);

/// The loop for `row_taps` x `column_taps` accumulators. Planar accumulators are vectors of partial sums over
/// columns.
template <class T>
GradientFn<T> gradient_loop(bool planar, std::int64_t row_taps, std::int64_t column_taps);

/// Adds rows of g to one accumulator vector (the bias gradient); tap_rows and x_rows are not read.
template <class T>
GradientFn<T> sum_loop(bool planar);

/// Lanes of an accumulator vector.
template <class T>
std::int64_t lane_count();

}  // namespace lamella::cpu
