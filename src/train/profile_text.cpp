#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "core/readable.h"
#include "lamella/core/threads.h"
#include "lamella/train/profile.h"
#include "train/profile_record.h"

namespace lamella::train {

namespace {

using lamella::detail::readable;

__attribute__((format(printf, 1, 2))) std::string text(const char* format, ...) {
  std::va_list values, again;
  va_start(values, format);
  va_copy(again, values);
  // Names of operators may be of any length.
  std::string result(static_cast<std::size_t>(std::max(0, std::vsnprintf(nullptr, 0, format, values))), '\0');
  std::vsnprintf(result.data(), result.size() + 1, format, again);
  va_end(again);
  va_end(values);
  return result;
}

std::string size_text(std::int64_t bytes) { return readable(static_cast<std::size_t>(bytes)); }

}  // namespace

std::string Profile::table() const {
  const std::vector<ProfiledKernel> all = kernels();
  const Device device = record_->log->device;
  const bool on_gpu = device.is_cuda();
  const double steps = static_cast<double>(std::max<std::int64_t>(1, this->steps()));
  std::size_t op_width = 8, kernel_width = 6;
  double cpu = 0, gpu = 0, bytes = 0, seconds_of_bytes = 0;
  std::int64_t calls = 0;
  for (const ProfiledKernel& kernel : all) {
    op_width = std::max(op_width, kernel.op.size());
    kernel_width = std::max(kernel_width, kernel.kernel.size());
    cpu += kernel.cpu_seconds, gpu += kernel.gpu_seconds, bytes += static_cast<double>(kernel.bytes);
    if (kernel.bytes > 0) seconds_of_bytes += on_gpu ? kernel.gpu_seconds : kernel.cpu_seconds;
    calls += kernel.calls;
  }
  std::string lines =
      text("%lld steps on %s", static_cast<long long>(this->steps()), device.to_string().c_str());
  if (!on_gpu) lines += text(" (%d threads)", num_threads());
  if (bandwidth() > 0) lines += text("; copying moves %.1f GB/s", 1e-9 * bandwidth());
  lines += ". All figures are for one step.\n\n";

  // `moved_in`: the seconds that the bytes were moved in; 0: nobody knows of bytes.
  const auto row = [&](const char* op, const char* pass, const char* kernel, double count, double cpu_seconds,
                       double gpu_seconds, double moved, double moved_in, const std::string& of_copy) {
    const double seconds = on_gpu ? gpu_seconds : cpu_seconds, all_seconds = on_gpu ? gpu : cpu;
    lines += text("%-*s  %-8s  %-*s  %6.4g  %9.3f", static_cast<int>(op_width), op, pass,
                  static_cast<int>(kernel_width), kernel, count / steps, 1e3 * cpu_seconds / steps);
    if (on_gpu) lines += text("  %9.3f", 1e3 * gpu_seconds / steps);
    lines += text("  %5.1f %%", all_seconds > 0 ? 100 * seconds / all_seconds : 0.0);
    lines += moved > 0 ? text("  %9.2f", 1e-6 * moved / steps) : text("  %9s", "-");
    lines += moved > 0 && moved_in > 0 ? text("  %7.1f", 1e-9 * moved / moved_in) : text("  %7s", "-");
    lines += text("  %7s\n", of_copy.c_str());
  };
  lines += text("%-*s  %-8s  %-*s  %6s  %9s", static_cast<int>(op_width), "operator", "pass",
                static_cast<int>(kernel_width), "kernel", "calls", "CPU ms");
  if (on_gpu) lines += text("  %9s", "GPU ms");
  lines += text("  %7s  %9s  %7s  %7s\n", "of all", "MB", "GB/s", "of copy");
  for (const ProfiledKernel& kernel : all) {
    const double moved = static_cast<double>(kernel.bytes);
    const double seconds = on_gpu ? kernel.gpu_seconds : kernel.cpu_seconds;
    const bool is_above = bandwidth() > 0 && seconds > 0 && moved > bandwidth() * seconds;
    std::string of_copy = is_above && !kernel.kernel.starts_with("copy_to_") ? "above" : "-";
    if (!std::isnan(kernel.share_of_bandwidth)) of_copy = text("%.0f %%", 100 * kernel.share_of_bandwidth);
    row(kernel.op.c_str(), name(kernel.pass), kernel.kernel.c_str(), static_cast<double>(kernel.calls),
        kernel.cpu_seconds, kernel.gpu_seconds, moved, seconds, of_copy);
  }
  row("all", "", "", static_cast<double>(calls), cpu, gpu, bytes, seconds_of_bytes, "-");

  lines += text("\n%.3f ms a step; of the CPU's time %.3f ms are in none of these\n", 1e3 * seconds() / steps,
                1e3 * (seconds() - cpu) / steps);
  return lines;
}

std::string Profile::memory_table() const {
  const std::vector<MemoryMoment> moments = memory();
  if (moments.empty()) return {};
  const auto most = std::max_element(moments.begin(), moments.end(),
                                     [](const auto& a, const auto& b) { return a.total < b.total; });
  const double when = record_->marks.front() + most->seconds;
  const auto after = std::upper_bound(record_->marks.begin(), record_->marks.end(), when);
  const auto step =
      std::clamp<std::int64_t>(after - record_->marks.begin(), 1, std::max<std::int64_t>(1, steps()));
  std::string lines =
      text("memory of %s at its most: %s, in step %lld", record_->log->device.to_string().c_str(),
           size_text(most->total).c_str(), static_cast<long long>(step));
  const auto& blocks = record_->log->blocks;
  const auto taken = std::find_if(blocks.begin(), blocks.end(),
                                  [&](const auto& block) { return std::abs(block.from - when) < 1e-9; });
  if (taken != blocks.end() && taken->op != nullptr)
    lines +=
        text(", for %s%s",
             taken->pass == lamella::detail::profiling::Pass::Gradient ? "the gradient of " : "", taken->op);
  lines += '\n';

  constexpr int kRows = 6;  // of a purpose
  const std::vector<MemoryShare> shares = peak();
  std::vector<std::size_t> order;
  for (std::size_t purpose = 0; purpose < kPurposes; ++purpose) order.push_back(purpose);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return most->in_use[a] > most->in_use[b]; });
  for (const std::size_t purpose : order) {
    if (most->in_use[purpose] == 0) continue;
    lines += text("%-11s  %12s\n", name(static_cast<MemoryPurpose>(purpose)),
                  size_text(most->in_use[purpose]).c_str());
    int rows = 0;
    std::int64_t rest = 0;
    for (const MemoryShare& share : shares) {
      if (static_cast<std::size_t>(share.purpose) != purpose) continue;
      if (++rows > kRows) {
        rest += share.bytes;
        continue;
      }
      std::string what = share.op;
      if (share.blocks > 0)
        what += text("%s%lld block%s", what.empty() ? "" : ": ", static_cast<long long>(share.blocks),
                     share.blocks == 1 ? "" : "s");
      if (!share.largest.empty()) what += ", the largest " + share.largest;
      lines += text("    %12s  %s\n", size_text(share.bytes).c_str(), what.c_str());
    }
    if (rest > 0) lines += text("    %12s  in %d more\n", size_text(rest).c_str(), rows - kRows);
  }
  return lines;
}

}  // namespace lamella::train
