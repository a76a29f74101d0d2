#pragma once

namespace lamella::detail::cuda {

/// A function of CUDA's driver, which the library is not linked with, as it has been since CUDA `since`
/// (12000: 12.0); null if the driver has none.
void* driver_function(const char* name, unsigned since);

}  // namespace lamella::detail::cuda
