#pragma once

#include <type_traits>

#include "core/check.h"
#include "core/profiling.h"
#ifdef LAMELLA_WITH_CUDA
#include "core/cuda_backend.h"
#endif
#include "lamella/core/device.h"
#include "lamella/core/dtype.h"

namespace lamella::detail {
[[noreturn]] void throw_no_backend(Device device);
}

/// Calls the kernel of a device: LAMELLA_KERNEL(x.device(), relu_forward(read(x), write(y))) calls
/// cpu::relu_forward or cuda::relu_forward. The one place that knows which backends there are. Kernels are
/// declared once for all of them, in a kernels.h. A profile counts what read() and write() give out as
/// the bytes of the call that comes next or whose arguments they are.
#define LAMELLA_KERNEL(where, ...)                                                                   \
  do {                                                                                               \
    const ::lamella::Device device_of_kernel = (where);                                              \
    const ::lamella::detail::profiling::KernelScope call_in_profile(device_of_kernel, #__VA_ARGS__); \
    if (device_of_kernel.is_cpu())                                                                   \
      ::lamella::cpu::__VA_ARGS__;                                                                   \
    else                                                                                             \
      LAMELLA_CUDA_KERNEL(device_of_kernel, __VA_ARGS__);                                            \
  } while (false)

#ifdef LAMELLA_WITH_CUDA
#define LAMELLA_CUDA_KERNEL(device, ...)                                  \
  do {                                                                    \
    const ::lamella::detail::cuda::DeviceGuard launching_on_it((device)); \
    ::lamella::cuda::__VA_ARGS__;                                         \
  } while (false)
#else
#define LAMELLA_CUDA_KERNEL(device, ...) ::lamella::detail::throw_no_backend(device)
#endif

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

/// Calls body(TypeTag<C>{}) with the compute type of `dtype`: double for float64, float for the other
/// floating types, std::int64_t for the rest.
template <class Body>
void dispatch_compute(DType dtype, Body&& body) {
  if (dtype == DType::Float64)
    body(TypeTag<double>{});
  else if (is_floating(dtype))
    body(TypeTag<float>{});
  else
    body(TypeTag<std::int64_t>{});
}
/// The same for floating types only: fewer loops.
template <class Body>
void dispatch_compute_floating(DType dtype, Body&& body) {
  if (dtype == DType::Float64)
    body(TypeTag<double>{});
  else
    body(TypeTag<float>{});
}

}  // namespace lamella::detail
