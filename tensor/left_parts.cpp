#include "tensor/left_parts.h"

#include "tensor/door.h"

namespace lamella::detail {

void* LeftParts::allocate(const Shape& shape, DType dtype, std::int64_t of_part) {
  tensor_ = detail::allocate(shape, dtype, device_);
  of_part_ = of_part;
  return write(tensor_, "").data;
}

void* LeftParts::take_interleaved(DType dtype, std::int64_t parts, int numbers) {
  void* const data = allocate({parts, channels_, numbers}, dtype, 0);
  tensor_ = alias(tensor_, {parts, numbers, channels_}, {channels_ * numbers, 1, numbers}, 0);
  return data;
}

float* GradientParts::take(std::int64_t parts, std::int64_t rows, std::int64_t row, std::int64_t step) {
  tensor_ = allocate({parts, rows, step}, DType::Float32, device_);
  row_ = row;
  return write(tensor_, "").as<float>();
}

}  // namespace lamella::detail
