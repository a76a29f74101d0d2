#include "machine.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace lamella::bench {

#ifdef __clang__
constexpr const char* kCompiler = __VERSION__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

nlohmann::json describe_machine(Device device, int threads) {
  double load = 0;
  getloadavg(&load, 1);
  nlohmann::json machine{{"cpu", cpu_name()},     {"cores", std::thread::hardware_concurrency()},
                         {"load_before", load},   {"threads", threads},
                         {"compiler", kCompiler}, {"device", device.to_string()}};
  if (device.is_cuda()) {
    const Gpu found = gpu(device);
    machine["gpu"] = found.name;
    machine["gpu_memory_gib"] = found.memory_gib;
    machine["cuda_driver"] = found.driver;
    machine["cuda_runtime"] = found.runtime;
  }
  return machine;
}

}  // namespace lamella::bench
