#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "gpu_machine.h"
#include "lamella/core/device.h"

namespace lamella::bench {
namespace {

cudaStream_t stream() { return static_cast<cudaStream_t>(current_stream(Device::cuda()).handle); }

// Each thread moves four vectors, a block's width apart, and the grid has a thread for each four.
__global__ void copy_once(const uint4* __restrict__ from, uint4* __restrict__ to, std::int64_t count) {
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x * 4 + threadIdx.x;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (const std::int64_t at = first + std::int64_t{i} * blockDim.x; at < count) to[at] = from[at];
}

// As many blocks as fit; eight loads are under way before the first store, and nothing is meant to stay in a
// cache.
template <int kAhead>
__global__ void copy_streaming(const uint4* __restrict__ from, uint4* __restrict__ to, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x * kAhead;
  for (std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x * kAhead + threadIdx.x; first < count;
       first += step) {
    uint4 held[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (const std::int64_t at = first + std::int64_t{i} * blockDim.x; at < count)
        held[i] = __ldcs(from + at);
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (const std::int64_t at = first + std::int64_t{i} * blockDim.x; at < count) __stcs(to + at, held[i]);
  }
}

// The sum is written where it is a certain number: what is read must not be left out.
template <int kAhead>
__global__ void read_only(const uint4* __restrict__ from, unsigned* to, std::int64_t count) {
  unsigned sum = 0;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x * kAhead;
  for (std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x * kAhead + threadIdx.x; first < count;
       first += step) {
    uint4 held[kAhead] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (const std::int64_t at = first + std::int64_t{i} * blockDim.x; at < count)
        held[i] = __ldcs(from + at);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) sum += held[i].x ^ held[i].y ^ held[i].z ^ held[i].w;
  }
  if (sum == 0x2545f491u) *to = sum;
}

constexpr int kChains = 8, kSteps = 4096, kThreads = 512;
__global__ void multiply_add(float* to, float factor, float term) {
  float sums[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) sums[i] = static_cast<float>(threadIdx.x + i);
#pragma unroll 16
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < kChains; ++i) sums[i] = fmaf(sums[i], factor, term);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += sums[i];
  if (sum == 1.2345f) *to = sum;
}

template <class T>
__global__ void fill_random(T* to, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    // The finalizer of MurmurHash3 (A. Appleby), 32 bits.
    auto bits = static_cast<std::uint32_t>(i) + 0x9e3779b9u * static_cast<std::uint32_t>(i >> 32);
    bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
    bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
    bits ^= bits >> 16;
    to[i] = static_cast<T>(static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-31f);
  }
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, 0));
  return value;
}

template <class Kernel>
int fitting_blocks(Kernel kernel, int threads) {
  int blocks = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0));
  return blocks * attribute(cudaDevAttrMultiProcessorCount);
}

std::string line_of(const char* command) {
  std::FILE* const pipe = popen(command, "r");
  if (pipe == nullptr) return "";
  char line[256] = "";
  if (std::fgets(line, sizeof line, pipe) == nullptr) line[0] = '\0';
  pclose(pipe);
  std::string text(line);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

void check_cuda(int status) {
  if (status != 0) throw std::runtime_error(cudaGetErrorString(static_cast<cudaError_t>(status)));
}

Arena::Arena(std::size_t bytes) : bytes_(bytes) { check_cuda(cudaMalloc(&data_, bytes)); }
Arena::~Arena() { cudaFree(data_); }

void Arena::fill(DType dtype, std::size_t bytes) const {
  const auto count = static_cast<std::int64_t>(bytes / size_of(dtype));
  constexpr int kBlocks = 4096, kWidth = 256;
  switch (dtype) {
    case DType::BFloat16:
      fill_random<<<kBlocks, kWidth, 0, stream()>>>(static_cast<__nv_bfloat16*>(data_), count);
      break;
    case DType::Float16:
      fill_random<<<kBlocks, kWidth, 0, stream()>>>(static_cast<__half*>(data_), count);
      break;
    case DType::Float64:
      fill_random<<<kBlocks, kWidth, 0, stream()>>>(static_cast<double*>(data_), count);
      break;
    default:
      fill_random<<<kBlocks, kWidth, 0, stream()>>>(static_cast<float*>(data_), count);
  }
  check_cuda(cudaGetLastError());
}

Rotation rotation_for(double bytes) {
  constexpr double kCaches = 4, kLongest = 2048;
  constexpr double kLeastBytes = 2e9;  // of a replay: about half a millisecond
  const double cache = attribute(cudaDevAttrL2CacheSize);
  Rotation rotation;
  rotation.buffers = static_cast<std::size_t>(std::max(1.0, std::ceil(kCaches * cache / bytes)));
  const double calls = std::clamp(std::ceil(kLeastBytes / bytes), 1.0, kLongest);
  rotation.calls = std::max(rotation.buffers, static_cast<std::size_t>(calls));
  return rotation;
}

double Timer::median(std::size_t calls, const std::function<void()>& work) const {
  // Everything is queued before the first wait, so that the GPU never waits for the CPU.
  const auto count = static_cast<std::size_t>(repetitions_);
  std::vector<cudaEvent_t> events(count + 1);
  for (cudaEvent_t& event : events) check_cuda(cudaEventCreate(&event));
  check_cuda(cudaEventRecord(events[0], stream()));
  for (std::size_t i = 0; i < count; ++i) {
    work();
    check_cuda(cudaEventRecord(events[i + 1], stream()));
  }
  check_cuda(cudaEventSynchronize(events[count]));
  std::vector<float> times(count);
  for (std::size_t i = 0; i < count; ++i)
    check_cuda(cudaEventElapsedTime(&times[i], events[i], events[i + 1]));
  for (const cudaEvent_t event : events) check_cuda(cudaEventDestroy(event));
  std::sort(times.begin(), times.end());
  return times[count / 2] / static_cast<double>(calls);
}

double Timer::of_graph(std::size_t calls, const std::function<void(std::size_t)>& call) const {
  constexpr double kLongest =
      20;   // milliseconds of a replay: what is far from the roofline must not take minutes
  call(0);  // loads the kernels and fills the allocator's cache
  const double once = Timer(1).median(1, [&] { call(0); });
  calls = std::clamp<std::size_t>(static_cast<std::size_t>(kLongest / once), 1, calls);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  check_cuda(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  for (std::size_t i = 0; i < calls; ++i) call(i);
  check_cuda(cudaStreamEndCapture(stream(), &graph));
  check_cuda(cudaGraphInstantiate(&ready, graph, 0));
  const auto replay = [&] { check_cuda(cudaGraphLaunch(ready, stream())); };
  replay();
  const double time = median(calls, replay);
  check_cuda(cudaGraphExecDestroy(ready));
  check_cuda(cudaGraphDestroy(graph));
  return time;
}

double Timer::of_calls(std::size_t calls, const std::function<void(std::size_t)>& call) const {
  const auto work = [&] {
    for (std::size_t i = 0; i < calls; ++i) call(i);
  };
  work();
  return median(calls, work);
}

const Roofline::Measured& Roofline::measured(double bytes, bool copies) {
  auto& known = copies ? copies_ : reads_;
  const int key = static_cast<int>(std::lround(std::log(bytes) / 0.04));
  if (const auto found = known.find(key); found != known.end()) return found->second;
  const Rotation rotation = rotation_for(bytes);
  // Whole vectors; of a copy half of the bytes are read, and half written.
  const auto count = static_cast<std::int64_t>(bytes / (copies ? 32 : 16));
  const std::size_t slot = static_cast<std::size_t>(count) * (copies ? 32 : 16);
  if (slot * rotation.buffers > arena_.bytes())
    throw std::runtime_error("the arena is too small for a roofline");
  arena_.fill(DType::Float32, slot * rotation.buffers);
  const auto from = [&](std::size_t i) {
    return reinterpret_cast<uint4*>(arena_.at(i % rotation.buffers * slot));
  };
  Measured result;
  result.bytes = bytes;
  const auto add = [&](const char* name, double milliseconds) {
    check_cuda(cudaGetLastError());
    const double rate = static_cast<double>(slot) / (milliseconds * 1e-3);
    result.each[name] = rate;
    result.best = std::max(result.best, rate);
  };
  const auto blocks_for = [&](int threads, int ahead) {
    return static_cast<unsigned>((count + std::int64_t{threads} * ahead - 1) /
                                 (std::int64_t{threads} * ahead));
  };
  if (copies) {
    add("memcpy", timer_.of_calls(rotation.calls, [&](std::size_t i) {
      check_cuda(cudaMemcpyAsync(from(i) + count, from(i), static_cast<std::size_t>(count) * 16,
                                 cudaMemcpyDeviceToDevice, stream()));
    }));
    add("one pass", timer_.of_graph(rotation.calls, [&](std::size_t i) {
      copy_once<<<blocks_for(256, 4), 256, 0, stream()>>>(from(i), from(i) + count, count);
    }));
    const auto resident = static_cast<unsigned>(fitting_blocks(copy_streaming<8>, 256));
    add("streaming", timer_.of_graph(rotation.calls, [&](std::size_t i) {
      copy_streaming<8>
          <<<std::min(resident, blocks_for(256, 8)), 256, 0, stream()>>>(from(i), from(i) + count, count);
    }));
    add("streaming, one pass", timer_.of_graph(rotation.calls, [&](std::size_t i) {
      copy_streaming<4><<<blocks_for(512, 4), 512, 0, stream()>>>(from(i), from(i) + count, count);
    }));
  } else {
    auto* const to = reinterpret_cast<unsigned*>(arena_.at(0));
    const auto resident = static_cast<unsigned>(fitting_blocks(read_only<4>, 512));
    add("resident", timer_.of_graph(rotation.calls, [&](std::size_t i) {
      read_only<4><<<std::min(resident, blocks_for(512, 4)), 512, 0, stream()>>>(from(i), to, count);
    }));
    const auto single = static_cast<unsigned>(fitting_blocks(read_only<1>, 512));
    add("resident, one at a time", timer_.of_graph(rotation.calls, [&](std::size_t i) {
      read_only<1><<<std::min(single, blocks_for(512, 1)), 512, 0, stream()>>>(from(i), to, count);
    }));
    add("one pass", timer_.of_graph(rotation.calls, [&](std::size_t i) {
      read_only<8><<<blocks_for(256, 8), 256, 0, stream()>>>(from(i), to, count);
    }));
  }
  return known.emplace(key, std::move(result)).first->second;
}

double Roofline::multiply_adds() {
  if (multiply_adds_ > 0) return multiply_adds_;
  const int blocks = fitting_blocks(multiply_add, kThreads) * 4;
  const double ms = timer_.of_graph(2, [&](std::size_t) {
    multiply_add<<<blocks, kThreads, 0, stream()>>>(reinterpret_cast<float*>(arena_.at(0)), 0.999f, 0.001f);
  });
  check_cuda(cudaGetLastError());
  return multiply_adds_ = static_cast<double>(blocks) * kThreads * kChains * kSteps / (ms * 1e-3);
}

Machine this_machine() {
  Machine machine;
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0));
  machine.gpu = properties.name;
  machine.architecture = 10 * properties.major + properties.minor;
  machine.multiprocessors = properties.multiProcessorCount;
  machine.cache_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  check_cuda(cudaDriverGetVersion(&machine.cuda_driver));
  check_cuda(cudaRuntimeGetVersion(&machine.cuda_runtime));
  machine.driver = line_of("nvidia-smi --id=0 --query-gpu=driver_version --format=csv,noheader 2>/dev/null");
  machine.clocks = line_of(
      "nvidia-smi --id=0 --query-gpu=clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem --format=csv,noheader "
      "2>/dev/null");
  return machine;
}

}  // namespace lamella::bench
