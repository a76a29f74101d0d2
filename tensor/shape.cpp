#include "lamella/tensor/shape.h"

#include <algorithm>

#include "core/check.h"

namespace lamella {
namespace {

std::int64_t checked_product(std::int64_t a, std::int64_t b, const Shape& shape) {
  std::int64_t result;
  LAMELLA_CHECK(ShapeError, !__builtin_mul_overflow(a, b, &result), "shape ", shape.to_string(),
                " has more elements than a 64-bit number counts");
  return result;
}

}  // namespace

Dims::Dims(std::initializer_list<std::int64_t> values)
    : Dims(std::span<const std::int64_t>(values.begin(), values.size())) {}

Dims::Dims(std::span<const std::int64_t> values) {
  LAMELLA_CHECK(ShapeError, values.size() <= kMaxAxes, "Dims: ", values.size(), " axes, at most ", kMaxAxes,
                " are supported");
  std::copy(values.begin(), values.end(), values_.begin());
  size_ = static_cast<int>(values.size());
}

Dims Dims::filled(int count, std::int64_t value) {
  LAMELLA_CHECK(ShapeError, count >= 0 && count <= kMaxAxes, "Dims::filled: ", count,
                " axes, must be from 0 to ", kMaxAxes);
  Dims dims;
  std::fill_n(dims.values_.begin(), count, value);
  dims.size_ = count;
  return dims;
}

void Dims::push_back(std::int64_t value) { insert(size_, value); }

void Dims::insert(int axis, std::int64_t value) {
  LAMELLA_CHECK(ShapeError, size_ < kMaxAxes, "Dims::insert: ", to_string(), " already has ", kMaxAxes,
                " axes, the most there may be");
  LAMELLA_CHECK(ShapeError, axis >= 0 && axis <= size_, "Dims::insert: axis ", axis, " is not from 0 to ",
                size_, " for ", to_string());
  std::copy_backward(values_.begin() + axis, values_.begin() + size_, values_.begin() + size_ + 1);
  values_[static_cast<std::size_t>(axis)] = value;
  ++size_;
}

void Dims::erase(int axis) {
  LAMELLA_CHECK(ShapeError, axis >= 0 && axis < size_, "Dims::erase: axis ", axis, " is not in ",
                to_string());
  std::copy(values_.begin() + axis + 1, values_.begin() + size_, values_.begin() + axis);
  --size_;
}

std::int64_t Dims::product() const {
  if (std::find(begin(), end(), 0) != end()) return 0;  // whatever the other sizes
  std::int64_t result = 1;
  for (const std::int64_t value : *this) result = checked_product(result, value, *this);
  return result;
}

std::string Dims::to_string() const {
  std::string text = "[";
  for (int i = 0; i < size_; ++i) {
    if (i != 0) text += ',';
    text += std::to_string((*this)[i]);
  }
  return text + "]";
}

bool operator==(const Dims& a, const Dims& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

const char* name(MemoryFormat format) {
  return format == MemoryFormat::ChannelsLast ? "channels_last" : "contiguous";
}

Strides dense_strides(const Shape& shape, MemoryFormat format) {
  Strides strides = Dims::filled(shape.size(), 1);
  if (format == MemoryFormat::ChannelsLast) {
    LAMELLA_CHECK(ShapeError, shape.size() == 4,
                  "dense_strides: channels_last is for 4 axes [N,C,H,W], not for ", shape.to_string());
    strides[3] = shape[1];
    strides[2] = checked_product(strides[3], shape[3], shape);
    strides[0] = checked_product(strides[2], shape[2], shape);
    return strides;
  }
  // As in PyTorch, an axis of size 0 counts as 1 here, so that no stride of a contiguous tensor is 0.
  for (int i = shape.size() - 2; i >= 0; --i)
    strides[i] = checked_product(strides[i + 1], std::max<std::int64_t>(shape[i + 1], 1), shape);
  return strides;
}

Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  const int shift = longer.size() - shorter.size();
  for (int i = 0; i < shorter.size(); ++i) {
    const std::int64_t size = shorter[i];
    std::int64_t& out = result[i + shift];
    LAMELLA_CHECK(ShapeError, size == out || size == 1 || out == 1, op, ": shapes ", a.to_string(), " and ",
                  b.to_string(), " do not broadcast: aligned at the right, sizes ", out, " and ", size,
                  " meet and must be equal or 1");
    if (out == 1) out = size;
  }
  return result;
}

int normalize_axis(const char* op, int axis, int count) {
  LAMELLA_CHECK(ShapeError, axis >= -count && axis < count, op, ": axis ", axis,
                " is out of range; a tensor with ", count, count == 1 ? " axis" : " axes", " takes ", -count,
                " to ", count - 1);
  return axis < 0 ? axis + count : axis;
}

}  // namespace lamella
