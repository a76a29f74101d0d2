// Depthwise convolution on a GPU: each pass's time, its share of the copy roofline measured in the same run,
// and beside PyTorch's. The floor is each input read once and each output written once. Buffers beyond the
// second-level cache are taken in turn, and calls are captured in a graph, so that neither the cache nor the
// launching counts.
#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "lamella/core/device.h"
#include "lamella/core/memory.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/create.h"
#include "layers/depthwise_conv2d/kernels.h"
#include "peer.h"
#include "tensor/door.h"

namespace lamella::bench {
namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

struct Row {
  const char* name;
  Shape input;
  Size2 kernel;
  std::int64_t stride;
  Size2 padding;
  std::int64_t dilation;
};

// Five published problems, then the layers of MobileNetV2, MobileNetV3 and ConvNeXt, and a dilated one.
const Row kRows[] = {
    {"3x7", {32, 128, 128, 256}, {3, 7}, 1, 0, 1},  {"kx1", {64, 8, 512, 512}, {3, 1}, 1, 0, 1},
    {"3x3", {64, 128, 256, 512}, 3, 1, 0, 1},       {"32@112", {256, 32, 112, 112}, 3, 1, 1, 1},
    {"96@112s2", {256, 96, 112, 112}, 3, 2, 1, 1},  {"144@56", {256, 144, 56, 56}, 3, 1, 1, 1},
    {"144@56s2", {256, 144, 56, 56}, 3, 2, 1, 1},   {"192@28", {256, 192, 28, 28}, 3, 1, 1, 1},
    {"384@14", {256, 384, 14, 14}, 3, 1, 1, 1},     {"576@14s2", {256, 576, 14, 14}, 3, 2, 1, 1},
    {"960@7", {256, 960, 7, 7}, 3, 1, 1, 1},        {"120@28k5", {256, 120, 28, 28}, 5, 1, 2, 1},
    {"240@28k5s2", {256, 240, 28, 28}, 5, 2, 2, 1}, {"96@56k7", {128, 96, 56, 56}, 7, 1, 3, 1},
    {"384@14k7", {128, 384, 14, 14}, 7, 1, 3, 1},   {"128@56d2", {128, 128, 56, 56}, 3, 1, 2, 2},
};
const char* const kPasses[] = {"forward", "input gradient", "weight gradient"};

class Timer {
 public:
  Timer() : stream_(static_cast<cudaStream_t>(current_stream(Device::cuda()).handle)) {
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  /// Median milliseconds of `work`, queued on Lamella's stream.
  double median(const std::function<void()>& work, int repetitions = 7) {
    std::vector<float> times(static_cast<std::size_t>(repetitions));
    for (float& time : times) {
      check(cudaEventRecord(begin_, stream_));
      work();
      check(cudaEventRecord(end_, stream_));
      check(cudaEventSynchronize(end_));
      check(cudaEventElapsedTime(&time, begin_, end_));
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  /// The same for calls captured in a graph.
  double median_of_graph(const std::function<void()>& calls) {
    calls();  // loads the kernels and fills the allocator's cache
    check(cudaStreamSynchronize(stream_));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    calls();
    check(cudaStreamEndCapture(stream_, &graph));
    check(cudaGraphInstantiate(&ready, graph, 0));
    const auto replay = [&] { check(cudaGraphLaunch(ready, stream_)); };
    replay();
    const double time = median(replay);
    check(cudaGraphExecDestroy(ready));
    check(cudaGraphDestroy(graph));
    return time;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// Bytes per second of a copy, read and written.
double copy_bandwidth(Timer& timer) {
  const std::size_t bytes = std::size_t{2} << 30;
  const Tensor from = full({static_cast<std::int64_t>(bytes / 4)}, 0.37, {.device = Device::cuda()});
  const Tensor to = empty_like(from);
  const auto stream = static_cast<cudaStream_t>(current_stream(Device::cuda()).handle);
  void *const target = detail::write(to, "copy").data, *const source = detail::write(from, "copy").data;
  const auto copy = [&] { check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, stream)); };
  copy();
  return 2.0 * static_cast<double>(bytes) / (timer.median(copy, 11) * 1e-3);
}

struct Result {
  double floor = 0, times[3] = {}, peer[3] = {};
};

Result measure(const Row& row, DType dtype, MemoryFormat format, double bandwidth, Timer& timer, Peer* peer) {
  const std::int64_t channels = row.input[1];
  const Shape weight_shape{channels, 1, row.kernel.h, row.kernel.w};
  const Conv2dGeometry geometry = make_conv2d_geometry("depthwise_conv2d", row.input, weight_shape,
                                                       row.stride, row.padding, row.dilation, channels);
  const double bytes = static_cast<double>((row.input.product() + geometry.output_shape().product()) *
                                           static_cast<std::int64_t>(size_of(dtype)));
  const int copies = std::clamp(static_cast<int>(3e8 / bytes), 1, 8);
  Result result;
  result.floor = bytes / bandwidth * 1e3;
  if (peer != nullptr) {
    std::ostringstream request;
    for (const std::int64_t size : row.input) request << size << ' ';
    request << row.kernel.h << ' ' << row.kernel.w << ' ' << row.stride << ' ' << row.padding.h << ' '
            << row.padding.w << ' ' << row.dilation << ' ' << name(dtype) << ' ' << name(format) << ' '
            << copies;
    std::istringstream answer(peer->ask(request.str()));
    answer >> result.peer[0] >> result.peer[1] >> result.peer[2];
  }
  const TensorOptions options{.dtype = dtype, .device = Device::cuda(), .format = format};
  const auto random = [&](const Shape& shape) {
    // Random numbers once, then copies on the device: they need not differ from image to image.
    Shape one = shape;
    one[0] = 1;
    return empty(shape, options).copy_(randn(one).to(Device::cuda()).to(dtype).expand(shape));
  };
  std::vector<Tensor> x, y, dx, dy;
  for (int i = 0; i < copies; ++i) {
    x.push_back(random(row.input));
    dy.push_back(random(geometry.output_shape()));
    y.push_back(empty_like(dy.back()));
    dx.push_back(empty_like(x.back()));
  }
  const Tensor weight = randn(weight_shape).to(Device::cuda()).to(dtype), dweight = empty_like(weight);
  const auto overwrite = detail::GradientWrite::Overwrite;
  using detail::read;
  const auto all = [&](const auto& call) {
    return timer.median_of_graph([&] {
      for (std::size_t i = 0; i < x.size(); ++i) call(i);
    }) / copies;
  };
  result.times[0] = all([&](std::size_t i) {
    cuda::depthwise_conv2d_forward(geometry, read(x[i]), read(weight), {}, detail::write(y[i], "bench"));
  });
  result.times[1] = all([&](std::size_t i) {
    cuda::depthwise_conv2d_backward_input(geometry, read(dy[i]), read(weight), detail::write(dx[i], "bench"),
                                          overwrite);
  });
  result.times[2] = all([&](std::size_t i) {
    cuda::depthwise_conv2d_backward_weight(geometry, read(dy[i]), read(x[i]), detail::write(dweight, "bench"),
                                           overwrite, {}, overwrite);
  });
  return result;
}

int run(int argc, char** argv) {
  CLI::App app{"Depthwise convolution on a GPU, as shares of the copy roofline"};
  std::string peer_name, only, json_path;
  std::vector<std::string> types{"float32", "bfloat16"};
  app.add_option("--peer", peer_name, "also measure: torch")->check(CLI::IsMember({"torch"}));
  app.add_option("--shape", only, "one shape of the table");
  app.add_option("--dtype", types, "element types");
  app.add_option("--json", json_path, "write the numbers there, too");
  CLI11_PARSE(app, argc, argv);
  if (!default_device().is_cuda()) throw std::runtime_error("no NVIDIA GPU that this build can use");

  std::unique_ptr<Peer> peer;
  if (!peer_name.empty())
    peer = std::make_unique<Peer>(LAMELLA_BENCH_DIR "/torch_depthwise_cuda.py", std::vector<std::string>{},
                                  "torch and a GPU");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  Timer timer;
  const double bandwidth = copy_bandwidth(timer);
  std::printf("%s, copy %.2f TB/s%s%s\n", properties.name, bandwidth * 1e-12, peer ? ", beside " : "",
              peer ? peer->version().c_str() : "");
  std::printf("%-11s %-9s %-14s %-16s %9s %9s %6s %9s %7s\n", "shape", "type", "format", "pass", "floor ms",
              "ms", "share", peer ? "torch ms" : "", peer ? "ratio" : "");
  nlohmann::json report{
      {"device", properties.name}, {"copy_bytes_per_second", bandwidth}, {"rows", nlohmann::json::array()}};
  for (const Row& row : kRows) {
    if (!only.empty() && only != row.name) continue;
    for (const std::string& type : types)
      for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
        const Result result = measure(row, parse_dtype(type), format, bandwidth, timer, peer.get());
        for (int pass = 0; pass < 3; ++pass) {
          const double time = result.times[pass];
          std::printf("%-11s %-9s %-14s %-16s %9.4f %9.4f %5.0f%%", row.name, type.c_str(), name(format),
                      kPasses[pass], result.floor, time, 100 * result.floor / time);
          if (peer) std::printf(" %9.4f %6.2fx", result.peer[pass], result.peer[pass] / time);
          std::printf("\n");
          std::fflush(stdout);
          nlohmann::json entry{{"shape", row.name},        {"dtype", type},
                               {"format", name(format)},   {"pass", kPasses[pass]},
                               {"floor_ms", result.floor}, {"ms", time}};
          if (peer) entry["peer_ms"] = result.peer[pass];
          report["rows"].push_back(entry);
        }
        empty_cache(Device::cuda());
      }
  }
  if (!json_path.empty()) {
    std::ofstream file(json_path);
    file << report.dump(1) << '\n';
    if (!file.flush()) throw std::runtime_error("cannot write " + json_path);
  }
  return 0;
}

}  // namespace
}  // namespace lamella::bench

int main(int argc, char** argv) {
  try {
    return lamella::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_depthwise_cuda: %s\n", error.what());
    return 1;
  }
}
