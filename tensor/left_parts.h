#pragma once

#include "lamella/tensor/tensor.h"
#include "tensor/view.h"

namespace lamella::detail {

/// Numbers of each channel that a kernel leaves beside its result, by parts, as its cut has them: whoever
/// takes them adds the parts up in their order, together with what else there is to do with the sums. Two
/// sums, or the moments of a part's values: mean and M2, the sum of squared deviations from it.
class LeftParts {
 public:
  LeftParts(Device device, std::int64_t channels) : device_(device), channels_(channels) {}

  /// Memory for [parts][numbers][channels], in float32 or float64; for a kernel that is about to run.
  /// Moments of two numbers are those of `of_part` values each, but for the last part, which has the rest; of
  /// three numbers, the first is the count.
  void* take(DType dtype, std::int64_t parts, int numbers, std::int64_t of_part = 0) {
    return allocate({parts, numbers, channels_}, dtype, of_part);
  }
  /// The same for [parts][channels][numbers].
  void* take_interleaved(DType dtype, std::int64_t parts, int numbers);

  /// [parts, numbers, channels]; undefined until something was taken.
  const Tensor& tensor() const { return tensor_; }
  std::int64_t of_part() const { return of_part_; }

 private:
  void* allocate(const Shape& shape, DType dtype, std::int64_t of_part);

  Device device_;
  std::int64_t channels_;
  Tensor tensor_;
  std::int64_t of_part_ = 0;
};

/// The gradient of a parameter that a kernel leaves by parts, in float32, to be added up in their order.
class GradientParts {
 public:
  explicit GradientParts(Device device) : device_(device) {}

  /// Memory for `parts` times [rows][step] numbers, for a kernel that is about to run. The first `row` of
  /// each row are the gradient's, in row-major order.
  float* take(std::int64_t parts, std::int64_t rows, std::int64_t row, std::int64_t step);

  /// [parts, rows, step]; undefined until it was taken.
  const Tensor& tensor() const { return tensor_; }
  std::int64_t row() const { return row_; }

 private:
  Device device_;
  Tensor tensor_;
  std::int64_t row_ = 0;
};

}  // namespace lamella::detail
