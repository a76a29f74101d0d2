#include "report.h"

#include <nlohmann/json.hpp>

#include "lamella/core/version.h"

namespace lamella::bench {

namespace {

constexpr double kGib = 1 << 30;
constexpr int kWho = 32;  // the longest mode fits

void print_part(std::FILE* out, const Part& part, const Parts& parts, double step_ms) {
  std::fprintf(out, "    %-22s %9.3f %6.1f%% %7.0f", part.name.c_str(), part.ms, 100 * part.ms / step_ms,
               part.calls);
  std::fprintf(out, " %10.1f %9.3f %10.1f %9.3f", part.bytes / 1e6, parts.floor_ms(part.bytes),
               part.least_bytes / 1e6, parts.floor_ms(part.least_bytes));
  if (part.least_bytes > 0) std::fprintf(out, " %7.2f", part.bytes / part.least_bytes);
  std::fprintf(out, "\n");
}

}  // namespace

void print_machine(std::FILE* out, const nlohmann::json& machine, const std::string& peer) {
  std::fprintf(out, "%s, %u cores (%.1f busy before), %d threads, %s",
               machine["cpu"].get<std::string>().c_str(), machine["cores"].get<unsigned>(),
               machine["load_before"].get<double>(), machine["threads"].get<int>(),
               machine["device"].get<std::string>().c_str());
  if (machine.contains("gpu"))
    std::fprintf(out, " (%s, CUDA %s, driver's %s)", machine["gpu"].get<std::string>().c_str(),
                 machine["cuda_runtime"].get<std::string>().c_str(),
                 machine["cuda_driver"].get<std::string>().c_str());
  std::fprintf(out, "\n%s\n", build_info().c_str());
  if (!peer.empty()) std::fprintf(out, "%s\n", peer.c_str());
}

void print_head(std::FILE* out, Device device) {
  std::fprintf(out, "  %-*s %6s", kWho, "milliseconds, medians", "steps");
  if (device.is_cpu()) std::fprintf(out, " %9s %9s %9s", kPhases[0], kPhases[1], kPhases[2]);
  std::fprintf(out, " %9s %9s %9s %9s%s\n", "step", "best", "images/s", "best",
               device.is_cuda() ? "  peak GiB" : "");
}

void print_row(std::FILE* out, Device device, const std::string& who, const Samples& samples,
               std::int64_t batch, std::size_t reserved) {
  const Summary s(samples);
  std::fprintf(out, "  %-*s %6lld", kWho, who.c_str(), static_cast<long long>(samples.steps));
  if (device.is_cpu()) std::fprintf(out, " %9.1f %9.1f %9.1f", s.median[0], s.median[1], s.median[2]);
  std::fprintf(out, " %9.*f %9.*f %9.0f %9.0f", device.is_cuda() ? 3 : 1, s.median[3],
               device.is_cuda() ? 3 : 1, s.best[3], s.images_per_second(batch),
               static_cast<double>(batch) / s.best[3] * 1e3);
  if (reserved != 0) std::fprintf(out, "  %8.2f", static_cast<double>(reserved) / kGib);
  std::fprintf(out, "\n");
  std::fflush(out);
}

void print_peer(std::FILE* out, Device device, const PeerResult& result, std::int64_t batch) {
  const std::string who = "PyTorch " + result.mode.name;
  if (result.ok()) return print_row(out, device, who, result.samples, batch, result.peak_reserved);
  std::fprintf(out, "  %-*s failed: %s\n", kWho, who.c_str(), result.error.c_str());
  std::fflush(out);
}

void print_parts(std::FILE* out, const Parts& parts, double step_ms) {
  const Part sum = parts.sum();
  std::fprintf(out, "\n  By part (%s), for one step", parts.how.c_str());
  if (parts.bandwidth > 0) std::fprintf(out, "; copying moves %.1f GB/s", parts.bandwidth / 1e9);
  std::fprintf(out, "\n    %-22s %9s %7s %7s %10s %9s %10s %9s %7s\n", "", "ms", "share", "calls", "MB moved",
               "as copy", "MB least", "floor ms", "moved/");
  for (const Part& part : parts.parts) print_part(out, part, parts, step_ms);
  std::fprintf(out, "    %-22s %9.3f %6.1f%%\n", "gaps", parts.gaps(step_ms),
               100 * parts.gaps(step_ms) / step_ms);
  Part step = sum;
  step.name = "step";
  step.ms = step_ms;
  print_part(out, step, parts, step_ms);
  std::fprintf(
      out,
      "  Gaps are the timed step without its parts; below zero where events make kernels longer. From the "
      "first\n  kernel's begin to the last one's end a profiled step took %.3f ms. Least: with norms, "
      "activations and sums\n  folded into convolutions, six passes over what lies between them.\n",
      parts.profiled_ms);
}

}  // namespace lamella::bench
