#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// How a new tensor is made.
struct TensorOptions {
  DType dtype = DType::Float32;
  Device device = Device::cpu();
  MemoryFormat format = MemoryFormat::Contiguous;
  bool requires_grad = false;
};

/// Uninitialised. Throws ShapeError for negative sizes, OutOfMemoryError.
LAMELLA_API Tensor empty(const Shape& shape, const TensorOptions& options = {});
/// Uninitialised, with the shape, type, device and format of `like` (without its gradient state).
LAMELLA_API Tensor empty_like(const Tensor& like);
LAMELLA_API Tensor zeros(const Shape& shape, const TensorOptions& options = {});
LAMELLA_API Tensor zeros_like(const Tensor& like);
LAMELLA_API Tensor ones(const Shape& shape, const TensorOptions& options = {});
LAMELLA_API Tensor ones_like(const Tensor& like);
LAMELLA_API Tensor full(const Shape& shape, double value, const TensorOptions& options = {});
/// A tensor without axes.
LAMELLA_API Tensor scalar(double value, const TensorOptions& options = {});
/// begin, begin + step, … below end, one axis. Throws ShapeError unless step leads from begin to end.
LAMELLA_API Tensor arange(double begin, double end, double step = 1, const TensorOptions& options = {});
/// The identity matrix.
LAMELLA_API Tensor eye(std::int64_t n, const TensorOptions& options = {});

/// Uniform in [0, 1). Drawn from the process-wide sequence (core/random.h); floating types only.
LAMELLA_API Tensor rand(const Shape& shape, const TensorOptions& options = {});
/// Standard normal (Box–Muller on Philox). Drawn on the CPU and copied, so that every device gets the same
/// bits.
LAMELLA_API Tensor randn(const Shape& shape, const TensorOptions& options = {});
/// Integers in [low, high), int64 unless options say otherwise.
LAMELLA_API Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape,
                           const TensorOptions& options = {.dtype = DType::Int64});

/// Copies row-major numbers; the element type is T's. Throws ShapeError unless values.size() is the shape's
/// product.
template <class T>
Tensor from_span(std::span<const T> values, const Shape& shape,
                 const TensorOptions& options = {.dtype = dtype_of<T>});
template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape,
                   const TensorOptions& options = {.dtype = dtype_of<T>}) {
  return from_span(std::span<const T>(values), shape, options);
}
/// One axis, float32: tensor({1, 2, 3}).
LAMELLA_API Tensor tensor(std::initializer_list<double> values, const TensorOptions& options = {});

extern template LAMELLA_API Tensor from_span<float>(std::span<const float>, const Shape&,
                                                    const TensorOptions&);
extern template LAMELLA_API Tensor from_span<double>(std::span<const double>, const Shape&,
                                                     const TensorOptions&);
extern template LAMELLA_API Tensor from_span<std::int64_t>(std::span<const std::int64_t>, const Shape&,
                                                           const TensorOptions&);
extern template LAMELLA_API Tensor from_span<std::int32_t>(std::span<const std::int32_t>, const Shape&,
                                                           const TensorOptions&);
extern template LAMELLA_API Tensor from_span<std::uint8_t>(std::span<const std::uint8_t>, const Shape&,
                                                           const TensorOptions&);
extern template LAMELLA_API Tensor from_span<BFloat16>(std::span<const BFloat16>, const Shape&,
                                                       const TensorOptions&);
extern template LAMELLA_API Tensor from_span<Float16>(std::span<const Float16>, const Shape&,
                                                      const TensorOptions&);

}  // namespace lamella
