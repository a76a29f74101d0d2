#include "layers/depthwise_conv2d/cpu/source_rows.h"

#include <algorithm>

namespace lamella::cpu {

bool use_channels_last(const detail::ConstTensorView& a, const detail::ConstTensorView& b,
                       std::int64_t channels) {
  const auto side_by_side = [](const detail::ConstTensorView& view) {
    return view.shape[1] == 1 || view.strides[1] == 1;
  };
  return channels > 1 && side_by_side(a) && side_by_side(b);
}

template <class T>
ColumnWindow<T>::ColumnWindow(const detail::ConstTensorView& tensor, bool planar, std::int64_t repeat,
                              Reach reach, std::int64_t in_step, std::int64_t overread)
    : tensor(tensor),
      planar(planar),
      repeat(repeat),
      begin(reach.begin),
      end(reach.end),
      in_step(planar ? in_step : 1),
      overread(overread) {
  const std::int64_t columns = end - begin;
  const Strides& strides = tensor.strides;
  const bool inside = begin >= 0 && end <= tensor.shape[3];
  const bool ascending = strides[0] >= 0 && strides[1] >= 0 && strides[2] >= 0;
  extent = 1;
  for (int axis = 0; axis < 4; ++axis) extent += (tensor.shape[axis] - 1) * strides[axis];
  const bool as_is = inside && ascending && tensor.dtype == dtype_of<T>;
  if (planar) {
    in_place = as_is && strides[3] == 1 && in_step == 1;
    phase_size = (columns + in_step - 1) / in_step + overread;
    row_size = phase_size * in_step;
  } else {
    column_size = tensor.shape[1] * repeat;
    in_place = as_is && repeat == 1 && strides[3] == column_size;
    row_size = columns * column_size + overread;
  }
}

template <class T>
void RowRing<T>::reserve(ScratchPlan& plan, const ColumnWindow<T>& window, std::int64_t slots) {
  plan.reserve<T>(window.row_size * slots);
}

template <class T>
RowRing<T>::RowRing(ScratchPlan& plan, const ColumnWindow<T>& window, std::int64_t slots)
    : window_(window), slots_(slots), buffer_(plan.take<T>(window.row_size * slots)) {
  // The padding stays zero: every copy writes the same columns of its slot.
  for (std::int64_t slot = 0; slot < slots && !window.in_place; ++slot)
    clear_padding(buffer_ + slot * window.row_size);
}

template <class T>
void RowRing<T>::clear_padding(T* row) const {
  const std::int64_t width = window_.tensor.shape[3];
  const std::int64_t from = std::max<std::int64_t>(window_.begin, 0), to = std::min(window_.end, width);
  if (window_.in_step > 1 || from >= to) {
    std::fill_n(row, window_.row_size, T{0});
    return;
  }
  std::fill(row, row + window_.offset(from - window_.begin), T{0});
  std::fill(row + window_.offset(to - window_.begin), row + window_.row_size, T{0});
}

template <class T>
void RowRing<T>::select(std::int64_t n, std::int64_t c) {
  const detail::ConstTensorView& tensor = window_.tensor;
  plane_ = n * tensor.strides[0] + c * tensor.strides[1];
  held_first_ = held_end_ = 0;
  in_place_rows_ = 0;
  if (!window_.in_place) return;
  // The last rows of the tensor may lack readable elements behind them.
  const std::int64_t room = window_.extent - window_.row_size - plane_ - window_.begin * tensor.strides[3];
  if (room < 0) return;
  const std::int64_t step = tensor.strides[2];
  in_place_rows_ = step == 0 ? tensor.shape[2] : std::min(tensor.shape[2], room / step + 1);
}

template <class T>
const std::byte* RowRing<T>::address(std::int64_t row) const {
  const detail::ConstTensorView& tensor = window_.tensor;
  const std::int64_t column = std::clamp<std::int64_t>(window_.begin, 0, tensor.shape[3] - 1);
  return static_cast<const std::byte*>(tensor.data) +
         (plane_ + row * tensor.strides[2] + column * tensor.strides[3]) *
             static_cast<std::int64_t>(size_of(tensor.dtype));
}

template <class T>
void RowRing<T>::copy_rows(std::int64_t first, std::int64_t last) {
  const detail::ConstTensorView& tensor = window_.tensor;
  const std::int64_t from = std::max<std::int64_t>(window_.begin, 0),
                     to = std::min(window_.end, tensor.shape[3]);
  if (from >= to) return;
  StageArgs<T> args;
  args.dtype = tensor.dtype;
  args.row_step = tensor.strides[2];
  args.columns = to - from;
  args.column_step = tensor.strides[3];
  args.channels = window_.planar ? 1 : tensor.shape[1];
  args.repeat = window_.planar ? 1 : window_.repeat;
  args.out_row_step = window_.row_size;
  args.first = from - window_.begin;
  args.phases = window_.in_step;
  args.phase_size = window_.phase_size;
  while (first < last) {
    const std::int64_t slot = first % slots_;
    args.source = address(first);
    args.row_count = std::min(last - first, slots_ - slot);
    args.out = buffer_ + slot * window_.row_size;
    stage_rows(args);
    first += args.row_count;
  }
}

template <class T>
void RowRing<T>::rows(std::int64_t first, std::int64_t last, const T* zeros, const T** table) {
  const detail::ConstTensorView& tensor = window_.tensor;
  const std::int64_t begin = std::clamp<std::int64_t>(0, first, last);
  const std::int64_t end = std::clamp(tensor.shape[2], begin, last);
  const std::int64_t copied = std::clamp(in_place_rows_, begin, end);
  if (copied < held_first_ || copied > held_end_) held_first_ = held_end_ = copied;
  if (end > held_end_) {
    copy_rows(held_end_, end);
    held_end_ = end;
    held_first_ = std::max(held_first_, end - slots_);
  }
  std::int64_t row = first;
  for (; row < begin; ++row) *table++ = zeros;
  if (row < copied) {
    const T* pointer = tensor.as<T>() + plane_ + row * tensor.strides[2] + window_.begin * tensor.strides[3];
    for (; row < copied; ++row, pointer += tensor.strides[2]) *table++ = pointer;
  }
  for (; row < end; ++row) *table++ = buffer_ + row % slots_ * window_.row_size;
  for (; row < last; ++row) *table++ = zeros;
}

template struct ColumnWindow<float>;
template struct ColumnWindow<double>;
template class RowRing<float>;
template class RowRing<double>;

}  // namespace lamella::cpu
