#pragma once

#include <type_traits>

#include "core/check.h"
#include "lamella/core/device.h"
#include "lamella/core/dtype.h"

namespace lamella::detail {
[[noreturn]] void throw_no_backend(Device device);
}

/// Calls the kernel of a device: LAMELLA_KERNEL(x.device(), relu_forward(read(x), write(y))) calls
/// cpu::relu_forward. The one place that knows which backends there are.
#define LAMELLA_KERNEL(where, ...)                           \
  do {                                                       \
    const ::lamella::Device device_of_kernel = (where);      \
    if (device_of_kernel.is_cpu())                           \
      ::lamella::cpu::__VA_ARGS__;                           \
    else                                                     \
      ::lamella::detail::throw_no_backend(device_of_kernel); \
  } while (false)

namespace lamella::detail {

/// The type in which arithmetic on T is done: float for the two half types, T otherwise.
template <class T>
using ComputeType = std::conditional_t<std::is_same_v<T, BFloat16> || std::is_same_v<T, Float16>, float, T>;

template <class T>
struct TypeTag {
  using type = T;
};

/// Calls body(TypeTag<T>{}) with the element type: for kernels over the four floating types.
template <class Body>
decltype(auto) dispatch_floating(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::Float32:
      return body(TypeTag<float>{});
    case DType::Float64:
      return body(TypeTag<double>{});
    case DType::BFloat16:
      return body(TypeTag<BFloat16>{});
    case DType::Float16:
      return body(TypeTag<Float16>{});
    default:
      throw DTypeError(concat("expected a floating type, got ", name(dtype)));
  }
}

/// The same over all eight types.
template <class Body>
decltype(auto) dispatch_all(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::Int64:
      return body(TypeTag<std::int64_t>{});
    case DType::Int32:
      return body(TypeTag<std::int32_t>{});
    case DType::UInt8:
      return body(TypeTag<std::uint8_t>{});
    case DType::Bool:
      return body(TypeTag<bool>{});
    default:
      return dispatch_floating(dtype, std::forward<Body>(body));
  }
}

}  // namespace lamella::detail
