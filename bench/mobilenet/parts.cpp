#include "parts.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "lamella/autograd/autograd.h"
#include "lamella/core/stream.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/layers/summary.h"
#include "lamella/tensor/create.h"

namespace lamella::bench {

using Json = nlohmann::json;

namespace {

// As in kPartNames.
constexpr std::size_t kDepthwise = 0, kPointwise = 1, kStem = 2, kElementwise = 3, kOptimizer = 4;

constexpr const char* kForward = "conv2d_forward";
constexpr const char* kWeight = "conv2d_backward_weight";
constexpr const char* kNorm = "batch_norm";

/// A call of a kernel, from a profile's trace.
struct Call {
  std::string kernel, pass;
  double begin = 0, ms = 0, bytes = 0;  ///< begin in ms
};

/// The calls of each step, as the device ran them.
std::vector<std::vector<Call>> calls_of_steps(const train::Profile& profile, bool on_gpu) {
  const Json trace = Json::parse(profile.trace());
  std::vector<double> ends;  // of steps, on the CPU
  std::vector<std::vector<Call>> steps;
  double called = 0;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts").get<double>() / 1e3, ms = event.at("dur").get<double>() / 1e3;
    if (event.at("cat") == "step") {
      ends.push_back(begin + ms);
      steps.emplace_back();
      continue;
    }
    // Of a GPU, a kernel's run stands behind its call.
    const bool is_run = event.at("pid") != 1;
    if (!is_run) called = begin;
    if (is_run != on_gpu) continue;
    const auto step = std::upper_bound(ends.begin(), ends.end(), called) - ends.begin();
    if (step == std::ssize(ends)) continue;
    const Json& args = event.at("args");
    steps[static_cast<std::size_t>(step)].push_back(
        {event.at("name"), event.at("cat"), begin, ms,
         args.at("bytes read").get<double>() + args.at("bytes written").get<double>()});
  }
  return steps;
}

/// The stem has no name of its own: it is what convolves before the first norm, and behind the last one's
/// gradient.
Part stem_of(const std::vector<std::vector<Call>>& steps) {
  Part stem;
  const auto add = [&](const Call& call) {
    stem.ms += call.ms;
    stem.bytes += call.bytes;
    stem.calls += 1;
  };
  for (const std::vector<Call>& calls : steps) {
    const auto is_norm = [](const Call& call) { return call.kernel.starts_with(kNorm); };
    const auto first = std::find_if(calls.begin(), calls.end(), is_norm);
    const auto last = std::find_if(calls.rbegin(), calls.rend(), is_norm).base();
    for (auto call = calls.begin(); call != first; ++call)
      if (call->kernel.starts_with(kForward)) add(*call);
    for (auto call = last; call != calls.end(); ++call)
      if (call->kernel.starts_with(kWeight)) add(*call);
  }
  return stem;
}

/// The number behind `name` in settings as "kernel_size=(3, 3), stride=(2, 2), groups=32".
std::int64_t setting(const std::string& settings, const std::string& name, std::int64_t otherwise) {
  const std::size_t at = settings.find(name + '=');
  if (at == std::string::npos) return otherwise;
  const std::size_t digit = settings.find_first_of("0123456789", at);
  return std::strtoll(settings.c_str() + digit, nullptr, 10);
}

Json part_json(const Part& part, const Parts& parts, double step_ms) {
  Json json{{"part", part.name},   {"ms", part.ms},       {"share", part.ms / step_ms},
            {"calls", part.calls}, {"bytes", part.bytes}, {"least_bytes", part.least_bytes}};
  if (parts.bandwidth > 0) {
    json["bytes_at_copy_ms"] = parts.floor_ms(part.bytes);
    json["floor_ms"] = parts.floor_ms(part.least_bytes);
  }
  return json;
}

}  // namespace

std::size_t part_of(const std::string& kernel, train::ProfiledPass pass) {
  if (pass == train::ProfiledPass::Update) return kOptimizer;
  if (kernel.starts_with("depthwise_conv2d")) return kDepthwise;
  if (kernel.starts_with("conv2d_") || kernel.starts_with("gemm")) return kPointwise;
  return kElementwise;
}

Part Parts::sum() const {
  Part all{.name = "all"};
  for (const Part& part : parts) {
    all.ms += part.ms;
    all.calls += part.calls;
    all.bytes += part.bytes;
    all.least_bytes += part.least_bytes;
  }
  return all;
}

Json Parts::json(double step_ms) const {
  Json rows = Json::array(), calls = Json::array();
  for (const Part& part : parts) rows.push_back(part_json(part, *this, step_ms));
  const double count = static_cast<double>(steps);
  for (const train::ProfiledKernel& kernel : kernels) {
    const double seconds = kernel.gpu_seconds > 0 ? kernel.gpu_seconds : kernel.cpu_seconds;
    calls.push_back({{"operator", kernel.op},
                     {"kernel", kernel.kernel},
                     {"pass", name(kernel.pass)},
                     {"part", kPartNames[part_of(kernel.kernel, kernel.pass)]},
                     {"calls", static_cast<double>(kernel.calls) / count},
                     {"ms", 1e3 * seconds / count},
                     {"bytes", static_cast<double>(kernel.bytes) / count}});
  }
  return {{"how", how},
          {"copy_bytes_per_second", bandwidth},
          {"profiled_steps", steps},
          {"profiled_step_ms", profiled_ms},
          {"parts", rows},
          {"all", part_json(sum(), *this, step_ms)},
          {"gaps_ms", gaps(step_ms)},
          {"kernels", calls}};
}

std::vector<double> least_bytes(Module& network, const Cell& cell, Device device) {
  std::vector<double> least(kParts, 0.0);
  const lamella::Summary summary =
      summarize(network, zeros({1, 3, cell.size, cell.size}, {.device = device}).contiguous(cell.format));
  const auto batch = static_cast<double>(cell.batch), bytes = static_cast<double>(cell.element_size());
  Size2 map{cell.size};  // on the way from layer to layer
  bool is_first = true;
  for (const LayerSummary& row : summary.rows) {
    if (row.calls == 0) continue;
    const double weights = (2 * bytes + sizeof(float)) * static_cast<double>(row.parameters);
    if (row.kind == "Linear") {
      const auto numbers = setting(row.settings, "in_features", 0) + setting(row.settings, "out_features", 0);
      least[kPointwise] += 3 * batch * static_cast<double>(numbers) * bytes + weights;
    }
    if (row.kind.find("Conv2d") == std::string::npos) continue;
    const std::int64_t in_channels = std::strtoll(row.settings.c_str(), nullptr, 10);
    const std::int64_t stride = setting(row.settings, "stride", 1);
    const std::int64_t groups = setting(row.settings, "groups", 1);
    const Size2 out{row.output[2], row.output[3]};
    // What squeezes and excites works beside the way, on one pixel.
    const bool is_beside = out == Size2(1) && (map.h + stride - 1) / stride > 1;
    const Size2 in = is_beside ? Size2(1) : map;
    if (!is_beside) map = out;
    const double read = batch * static_cast<double>(in_channels * in.h * in.w);
    const double written = batch * static_cast<double>(row.output[1] * out.h * out.w);
    if (is_first) {
      least[kStem] = 2 * read * sizeof(float) + 3 * written * bytes + weights;  // images are float32
    } else {
      least[groups > 1 ? kDepthwise : kPointwise] += 3 * (read + written) * bytes + weights;
    }
    is_first = false;
  }
  least[kOptimizer] = 5 * sizeof(float) * static_cast<double>(network.num_parameters());
  return least;
}

Parts measure_parts(Trainer& trainer, int steps) {
  const Device device = trainer.device();
  Parts result{.how = device.is_cuda()
                          ? std::to_string(steps) +
                                " uncaptured steps, launched ahead, GPU events before and behind each kernel"
                          : std::to_string(steps) + " steps, the CPU's clock around each kernel",
               .steps = steps};
  const std::vector<double> least = least_bytes(trainer.network(), trainer.cell(), device);
  for (std::size_t part = 0; part < kParts; ++part)
    result.parts.push_back({.name = kPartNames[part], .least_bytes = least[part]});

  train::Step step(trainer.network(), trainer.optimizer(),
                   {.check_every = 0, .autocast = trainer.cell().autocast()});
  constexpr int kWarmUp = 3;
  for (int i = 0; i < kWarmUp; ++i) step(trainer.images(), trainer.labels());
  synchronize(device);
  train::Profile profile(device);
  profile.start();
  for (int i = 0; i < steps; ++i) {
    step(trainer.images(), trainer.labels());
    profile.step();
  }
  profile.stop();

  result.bandwidth = profile.bandwidth();
  result.kernels = profile.kernels();
  const double count = steps;
  for (const train::ProfiledKernel& kernel : result.kernels) {
    Part& part = result.parts[part_of(kernel.kernel, kernel.pass)];
    part.ms += 1e3 * (device.is_cuda() ? kernel.gpu_seconds : kernel.cpu_seconds) / count;
    part.bytes += static_cast<double>(kernel.bytes) / count;
    part.calls += static_cast<double>(kernel.calls) / count;
  }
  const std::vector<std::vector<Call>> calls = calls_of_steps(profile, device.is_cuda());
  const Part stem = stem_of(calls);
  for (const auto& [to, sign] : {std::pair{kStem, 1.0}, std::pair{kPointwise, -1.0}}) {
    Part& part = result.parts[to];
    part.ms += sign * stem.ms / count;
    part.bytes += sign * stem.bytes / count;
    part.calls += sign * stem.calls / count;
  }
  for (const std::vector<Call>& of_step : calls) {
    double end = 0;
    for (const Call& call : of_step) end = std::max(end, call.begin + call.ms);
    if (!of_step.empty()) result.profiled_ms += (end - of_step.front().begin) / count;
  }
  return result;
}

}  // namespace lamella::bench
