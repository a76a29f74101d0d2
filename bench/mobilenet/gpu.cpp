#include <cuda_runtime.h>

#include "machine.h"

namespace lamella::bench {

namespace {

std::string version(int number) {
  return std::to_string(number / 1000) + '.' + std::to_string(number % 1000 / 10);
}

}  // namespace

Gpu gpu(Device device) {
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  if (cudaGetDeviceProperties(&properties, device.index) != cudaSuccess) return {};
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return {properties.name, version(driver), version(runtime),
          static_cast<double>(properties.totalGlobalMem) / (1 << 30)};
}

}  // namespace lamella::bench
