#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "layers/depthwise_conv2d/cpu/rows.h"
#include "layers/depthwise_conv2d/cpu/scratch.h"
#include "layers/depthwise_conv2d/cpu/taps.h"
#include "tensor/view.h"

namespace lamella::cpu {

/// Whether the vector runs along C (both tensors have their channels side by side) instead of along W.
bool use_channels_last(const detail::ConstTensorView& a, const detail::ConstTensorView& b,
                       std::int64_t channels);

/// A range of columns of a tensor as the vector loops read it: each row a run of T, zero outside the tensor,
/// with kOverread readable elements behind it. Rows that already are such a run are read in place; others are
/// copied, converted and padded in a ring of slots.
///
/// The description is shared by all tasks of an operator; what a task holds lies in its scratch.
template <class T>
struct ColumnWindow {
  detail::ConstTensorView tensor;
  bool planar = true;
  std::int64_t repeat = 1;  ///< channels-last: each channel so often
  std::int64_t begin = 0;   ///< source columns [begin, end), may lie outside the tensor
  std::int64_t end = 0;
  std::int64_t in_step = 1;      ///< planar: columns are split by their remainder, so that strides vanish
  std::int64_t overread = 0;     ///< elements read behind the window
  std::int64_t extent = 0;       ///< elements from the tensor's first to one past its last
  bool in_place = false;         ///< rows can be read where they are, as far as the tensor's end allows
  std::int64_t row_size = 0;     ///< elements of a copied row, the overread included
  std::int64_t phase_size = 0;   ///< planar
  std::int64_t column_size = 1;  ///< elements between columns of a row

  ColumnWindow(const detail::ConstTensorView& tensor, bool planar, std::int64_t repeat, Reach reach,
               std::int64_t in_step, std::int64_t overread);
  /// Where column begin + distance lies in a row.
  std::int64_t offset(std::int64_t distance) const {
    return planar ? distance % in_step * phase_size + distance / in_step : distance * column_size;
  }
};

/// The rows of one window at hand.
template <class T>
class RowRing {
 public:
  static void reserve(ScratchPlan& plan, const ColumnWindow<T>& window, std::int64_t slots);
  RowRing(ScratchPlan& plan, const ColumnWindow<T>& window, std::int64_t slots);

  /// Turns to image n, channel c (channels-last: 0).
  void select(std::int64_t n, std::int64_t c);
  /// Pointers to rows [first, last), at most `slots` of them; `zeros` stands for rows outside the tensor.
  /// Rows are copied once where each call asks for later rows than the one before.
  void rows(std::int64_t first, std::int64_t last, const T* zeros, const T** table);
  /// Address in the tensor of row `row` of the selected plane, whether or not it exists: to prefetch from.
  const std::byte* address(std::int64_t row) const;
  const ColumnWindow<T>& window() const { return window_; }

 private:
  void clear_padding(T* row) const;
  void copy_rows(std::int64_t first, std::int64_t last);

  const ColumnWindow<T>& window_;
  std::int64_t slots_;
  T* buffer_;
  std::int64_t plane_ = 0;          // offset of the selected plane in the tensor, in elements
  std::int64_t in_place_rows_ = 0;  // rows before this one are read in place
  std::int64_t held_first_ = 0;     // rows [held_first_, held_end_) are in their slots
  std::int64_t held_end_ = 0;
};

}  // namespace lamella::cpu
