#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// How a new tensor is made. Whatever takes these options throws ShapeError for a negative size, more
/// elements than 64 bits count, or ChannelsLast unless there are 4 axes; DeviceError for a device that this
/// build or machine does not have; DTypeError for requires_grad with a type that is not floating;
/// OutOfMemoryError.
struct TensorOptions {
  DType dtype = DType::Float32;                    ///< of the elements
  Device device = Device::cpu();                   ///< where they lie
  MemoryFormat format = MemoryFormat::Contiguous;  ///< how they lie; ignored by arange(), eye() and tensor()
  bool pinned =
      false;  ///< on the CPU, in page-locked memory: see Tensor::pin_memory(). Used by empty() alone
  bool requires_grad = false;  ///< whether backward computes a gradient: see Tensor::set_requires_grad()
};

/// Uninitialised: the elements are whatever the memory held.
LAMELLA_API Tensor empty(const Shape& shape, const TensorOptions& options = {});
/// Uninitialised, with the shape, type, device and memory format of `like`; requires no gradient. Throws
/// Error if `like` is undefined, as the next two do.
LAMELLA_API Tensor empty_like(const Tensor& like);
/// All elements 0.
LAMELLA_API Tensor zeros(const Shape& shape, const TensorOptions& options = {});
/// All elements 0; otherwise as empty_like().
LAMELLA_API Tensor zeros_like(const Tensor& like);
/// All elements 1.
LAMELLA_API Tensor ones(const Shape& shape, const TensorOptions& options = {});
/// All elements 1; otherwise as empty_like().
LAMELLA_API Tensor ones_like(const Tensor& like);
/// All elements `value`, converted to the type.
LAMELLA_API Tensor full(const Shape& shape, double value, const TensorOptions& options = {});
/// A tensor without axes: one element.
LAMELLA_API Tensor scalar(double value, const TensorOptions& options = {});
/// begin, begin + step, … before end, along one axis; each is computed in float64 as begin + i · step and
/// then converted. Throws ShapeError for a step that is 0 or leads away from end, and for numbers that are
/// not finite.
LAMELLA_API Tensor arange(double begin, double end, double step = 1, const TensorOptions& options = {});
/// The identity matrix [n,n]. Throws ShapeError for a negative n.
LAMELLA_API Tensor eye(std::int64_t n, const TensorOptions& options = {});

/// Uniform in [0, 1). Drawn on the CPU from the process-wide sequence (core/random.h) and copied, so that
/// every device gets the same bits, as randn() and randint() do. Throws DTypeError unless the type is
/// floating.
LAMELLA_API Tensor rand(const Shape& shape, const TensorOptions& options = {});
/// Standard normal (Box–Muller, in float64). Throws DTypeError unless the type is floating.
LAMELLA_API Tensor randn(const Shape& shape, const TensorOptions& options = {});
/// Integers in [low, high), int64 unless options say otherwise. Throws ShapeError unless low < high and the
/// range is below 2^32.
LAMELLA_API Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape,
                           const TensorOptions& options = {.dtype = DType::Int64});

/// Copies numbers given in row-major order; T is float, double, int64_t, int32_t, uint8_t, BFloat16 or
/// Float16. The element type is T's unless options say otherwise: then the numbers are converted. Throws
/// ShapeError unless values.size() is the number of elements of `shape`.
template <class T>
Tensor from_span(std::span<const T> values, const Shape& shape,
                 const TensorOptions& options = {.dtype = dtype_of<T>});
/// from_span() of a vector.
template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape,
                   const TensorOptions& options = {.dtype = dtype_of<T>}) {
  return from_span(std::span<const T>(values), shape, options);
}
/// One axis: tensor({1, 2, 3}). float32 unless options say otherwise.
LAMELLA_API Tensor tensor(std::initializer_list<double> values, const TensorOptions& options = {});

/// @cond
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
/// @endcond

}  // namespace lamella
