#pragma once

#include "layers/norm/cuda/finish.cuh"
#include "tensor/view.h"

namespace lamella::cuda {

/// Parts of two sums or of moments as a kernel of another family left them: see LeftParts.
template <class T>
struct LeftView {
  LeftView(const detail::ConstTensorView& view, std::int64_t of_part, std::int64_t total)
      : numbers(view.as<T>()),
        part_count(view.shape[0]),
        counted(view.shape[1] == 3),
        part_step(view.strides[0]),
        number_step(view.strides[1]),
        channel_step(view.strides[2]),
        of_part(of_part),
        total(total) {}

  __host__ __device__ std::int64_t parts() const { return part_count; }
  __device__ double count(std::int64_t part, std::int64_t c) const {
    if (counted) return static_cast<double>(numbers[part * part_step + c * channel_step]);
    return static_cast<double>(min(of_part, total - part * of_part));
  }
  __device__ Pair pair(std::int64_t part, std::int64_t c) const {
    const T* const from = numbers + part * part_step + c * channel_step + (counted ? number_step : 0);
    return {static_cast<double>(from[0]), static_cast<double>(from[number_step])};
  }

  const T* numbers;
  std::int64_t part_count;
  bool counted;  ///< the first of three numbers is the count
  std::int64_t part_step, number_step, channel_step;
  std::int64_t of_part, total;
};

/// finish_parts() of what another kernel left.
template <class Tally, class Done>
void finish_left(const char* what, const detail::ConstTensorView& left, std::int64_t of_part,
                 std::int64_t total, const Done& done) {
  const auto finish_type = [&](auto number) {
    using T = decltype(number);
    finish_parts<Tally>(what, left.device, LeftView<T>(left, of_part, total), left.shape[2], done);
  };
  left.dtype == DType::Float64 ? finish_type(double()) : finish_type(float());
}

}  // namespace lamella::cuda
