#include "core/cuda/driver.h"

#include <cuda_runtime_api.h>

namespace lamella::detail::cuda {

void* driver_function(const char* name, [[maybe_unused]] unsigned since) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  const auto status = cudaGetDriverEntryPointByVersion(name, &function, since, cudaEnableDefault, &result);
#else
  const auto status = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &result);
#endif
  if (status == cudaSuccess && result == cudaDriverEntryPointSuccess) return function;
  cudaGetLastError();
  return nullptr;
}

}  // namespace lamella::detail::cuda
