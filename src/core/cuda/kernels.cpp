#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "core/cuda/check.h"
#include "core/cuda/compiler.h"
#include "core/cuda/shared_memory.h"
#include "core/cuda/uncaptured.h"
#include "lamella/core/error.h"
#include "lamella/core/log.h"

namespace lamella::detail::cuda {
namespace {

const void* load(const Sources& sources, const std::string& expression, Device device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index),
        "cudaDeviceGetAttribute");
  const CompiledKernel compiled = compile_or_load(sources, expression, 10 * major + minor);
  const UncapturedCalls uncaptured;
  cudaLibrary_t library = nullptr;
  check(cudaLibraryLoadData(&library, compiled.cubin.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        "cudaLibraryLoadData");
  cudaKernel_t kernel = nullptr;
  check(cudaLibraryGetKernel(&kernel, library, compiled.symbol.c_str()), "cudaLibraryGetKernel");
  const void* const entry = kernel;
  check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes(device)),
        "cudaFuncSetAttribute");
  return entry;
}

}  // namespace

int most_shared_bytes(Device device) {
  int bytes = 0;
  const bool is_known =
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index) == cudaSuccess;
  return is_known ? bytes : shared_bytes_of_architecture(90);
}

const void* kernel_for(const Sources& sources, const std::string& expression, Device device) {
  using Key = std::pair<int, std::string>;
  struct Entry {
    std::once_flag once;
    const void* kernel = nullptr;
  };
  static std::shared_mutex mutex;
  static std::map<Key, Entry> entries;  // they stay where they are
  Key key(device.index, expression);
  Entry* entry = nullptr;
  {
    const std::shared_lock lock(mutex);
    const auto found = entries.find(key);
    if (found != entries.end()) entry = &found->second;
  }
  if (entry == nullptr) {
    const std::unique_lock lock(mutex);
    entry = &entries[std::move(key)];
  }
  // Outside the lock, so that different kernels are compiled at the same time; who wants the same one waits.
  std::call_once(entry->once, [&] {
    try {
      entry->kernel = load(sources, expression, device);
    } catch (const Error& error) {
      log_message(LogLevel::Warning, std::string(error.what()) + "; a slower kernel does its work");
    }
  });
  return entry->kernel;
}

}  // namespace lamella::detail::cuda
