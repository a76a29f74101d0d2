#include <lamella/lamella.h>

#include <cstdio>
#include <exception>
#include <string>

#include "commands.h"

namespace lm = lamella;

namespace {

void line(const std::string& name, const std::string& value) {
  std::printf("%-10s %s\n", name.c_str(), value.c_str());
}

}  // namespace

int run_info() {
  // "lamella 0.1.0; GCC 12.2.0; flags: …; CPU: …; CUDA: …"
  const std::string build = lm::build_info();
  std::size_t parts = 0;
  for (std::size_t begin = 0; begin < build.size(); ++parts) {
    const std::size_t end = std::min(build.find("; ", begin), build.size());
    const std::string part = build.substr(begin, end - begin);
    const std::size_t colon = part.find(": ");
    if (parts == 0)
      line("version", part);
    else if (colon != std::string::npos)
      line(part.substr(0, colon), part.substr(colon + 2));
    else
      line(parts == 1 ? "compiler" : "build", part);
    begin = end + 2;
  }
  line("libraries", lm::library_versions());
  line("threads", std::to_string(lm::num_threads()));
  const int gpus = lm::cuda_device_count();
  const std::string why_none = lm::why_no_gpu();
  line("GPUs", std::to_string(gpus) + (gpus == 0 ? " (" + why_none + ")" : ""));
  for (int i = 0; i < gpus; ++i) {
    const lm::Device device = lm::Device::cuda(i);
    try {  // taking memory shows that it can be used
      lm::zeros({1}, {.device = device});
      line(device.to_string(), "usable");
    } catch (const std::exception& error) {
      line(device.to_string(), error.what());
    }
  }
  line("device", lm::default_device().to_string());
  return 0;
}
