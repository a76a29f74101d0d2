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
  plan.reserve<std::int64_t>(slots);
}

template <class T>
RowRing<T>::RowRing(ScratchPlan& plan, const ColumnWindow<T>& window, std::int64_t slots)
    : window_(window),
      slots_(slots),
      buffer_(plan.take<T>(window.row_size * slots)),
      held_(plan.take<std::int64_t>(slots)) {
  // The padding stays zero: every copy writes the same columns of its slot.
  for (std::int64_t slot = 0; slot < slots && !window.in_place; ++slot)
    clear_padding(buffer_ + slot * window.row_size);
  std::fill_n(held_, slots, -1);
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
  plane_ = n * window_.tensor.strides[0] + c * window_.tensor.strides[1];
  std::fill_n(held_, slots_, -1);
}

template <class T>
const T* RowRing<T>::in_place_row(std::int64_t row) const {
  if (!window_.in_place) return nullptr;
  const detail::ConstTensorView& tensor = window_.tensor;
  const std::int64_t start = plane_ + row * tensor.strides[2] + window_.begin * tensor.strides[3];
  std::int64_t last = 0;
  for (int axis = 0; axis < 4; ++axis) last += (tensor.shape[axis] - 1) * tensor.strides[axis];
  return start + window_.row_size <= last + 1 ? tensor.as<T>() + start : nullptr;
}

template <class T>
void RowRing<T>::copy_rows(std::int64_t first, std::int64_t count) {
  const detail::ConstTensorView& tensor = window_.tensor;
  const std::int64_t from = std::max<std::int64_t>(window_.begin, 0),
                     to = std::min(window_.end, tensor.shape[3]);
  if (from >= to) return;
  StageArgs<T> args;
  args.dtype = tensor.dtype;
  args.source = static_cast<const std::byte*>(tensor.data) +
                (plane_ + first * tensor.strides[2] + from * tensor.strides[3]) *
                    static_cast<std::int64_t>(size_of(tensor.dtype));
  args.row_count = count;
  args.row_step = tensor.strides[2];
  args.columns = to - from;
  args.column_step = tensor.strides[3];
  args.channels = window_.planar ? 1 : tensor.shape[1];
  args.repeat = window_.planar ? 1 : window_.repeat;
  args.out = buffer_ + first % slots_ * window_.row_size;
  args.out_row_step = window_.row_size;
  args.first = from - window_.begin;
  args.phases = window_.in_step;
  args.phase_size = window_.phase_size;
  stage_rows(args);
}

template <class T>
void RowRing<T>::rows(std::int64_t first, std::int64_t last, const T* zeros, const T** table) {
  const std::int64_t height = window_.tensor.shape[2];
  std::int64_t pending = 0;  // rows before this one that are to be copied in one go
  for (std::int64_t row = first; row < last; ++row) {
    const T* pointer = zeros;
    bool copy = false;
    if (row >= 0 && row < height) {
      pointer = in_place_row(row);
      if (pointer == nullptr) {
        const std::int64_t slot = row % slots_;
        pointer = buffer_ + slot * window_.row_size;
        copy = held_[slot] != row;
        held_[slot] = row;
        if (pending > 0 && (!copy || slot == 0)) {
          copy_rows(row - pending, pending);
          pending = 0;
        }
      }
    }
    if (!copy && pending > 0) {
      copy_rows(row - pending, pending);
      pending = 0;
    }
    pending += copy ? 1 : 0;
    table[row - first] = pointer;
  }
  if (pending > 0) copy_rows(last - pending, pending);
}

template struct ColumnWindow<float>;
template struct ColumnWindow<double>;
template class RowRing<float>;
template class RowRing<double>;

}  // namespace lamella::cpu
