#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "lamella/core/device.h"

/// What measures.
namespace lamella::bench {

/// Of one GPU. All empty in a build without CUDA.
struct Gpu {
  std::string name;
  std::string driver, runtime;  ///< CUDA versions, as "13.0"
  double memory_gib = 0;
};
Gpu gpu(Device device);

/// What /proc/cpuinfo calls it.
std::string cpu_name();

/// CPU, cores, load, threads, compiler, and of a GPU name and versions.
nlohmann::json describe_machine(Device device, int threads);

}  // namespace lamella::bench
