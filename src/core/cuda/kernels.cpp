#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "core/cuda/check.h"
#include "core/cuda/compiler.h"
#include "core/cuda/uncaptured.h"
#include "lamella/core/error.h"
#include "lamella/core/log.h"

namespace lamella::detail::cuda {
namespace {

const void* load(const Sources& sources, const std::string& expression, int device) {
  int major = 0, minor = 0, shared = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  const CompiledKernel compiled = compile_or_load(sources, expression, 10 * major + minor);
  const UncapturedCalls uncaptured;
  cudaLibrary_t library = nullptr;
  check(cudaLibraryLoadData(&library, compiled.cubin.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        "cudaLibraryLoadData");
  cudaKernel_t kernel = nullptr;
  check(cudaLibraryGetKernel(&kernel, library, compiled.symbol.c_str()), "cudaLibraryGetKernel");
  const void* const entry = kernel;
  check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
  return entry;
}

}  // namespace

const void* kernel_for(const Sources& sources, const std::string& expression, Device device) {
  using Key = std::pair<int, std::string>;
  static std::shared_mutex mutex;
  static std::map<Key, const void*> kernels;
  Key key(device.index, expression);
  {
    const std::shared_lock lock(mutex);
    const auto found = kernels.find(key);
    if (found != kernels.end()) return found->second;
  }
  const std::unique_lock lock(mutex);
  const auto found = kernels.find(key);
  if (found != kernels.end()) return found->second;
  const void* kernel = nullptr;
  try {
    kernel = load(sources, expression, device.index);
  } catch (const Error& error) {
    log_message(LogLevel::Warning, std::string(error.what()) + "; a slower kernel does its work");
  }
  kernels.emplace(std::move(key), kernel);
  return kernel;
}

}  // namespace lamella::detail::cuda
