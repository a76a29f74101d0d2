// What the copy engine of a GPU of compute capability 9 brings to shared memory, and nothing else: runs of
// one piece of memory, by where they begin in it and in shared memory; and short runs, one of each of some
// images, with a copy for each or as the rows of one box. A warp of each block asks for pages ahead, and
// takes them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "../gpu_machine.h"
#include "core/cuda/copy_engine.h"
#include "core/cuda/stream.h"
#include "lamella/core/device.h"
#include "layers/depthwise_conv2d/cuda/device/primitives.cuh"

namespace lamella::bench {
namespace {

using depthwise::TensorMap;

constexpr int kPageAlignment = 128, kBlocks = 132;

/// Pages of `rows` runs of so many bytes each. Run r of page p begins, in bytes, at
/// p / groups · rows · row_stride + r · row_stride + p % groups · group_stride + skew in memory and at
/// r · pitch + place in its page.
struct Pages {
  const char* data = nullptr;
  int rows = 1, bytes = 0, pitch = 0, place = 0, skew = 0;
  std::int64_t row_stride = 0, group_stride = 0;
  int groups = 1, pages = 0, slots = 2;
  bool as_box = false;
  TensorMap map{};  ///< of rows, where they are moved as a box: without skew and place
  __host__ __device__ int page_bytes() const {
    return (rows * pitch + place + kPageAlignment - 1) / kPageAlignment * kPageAlignment;
  }
};

#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)
__device__ void ask_for(const Pages& p, int page, unsigned to, unsigned barrier) {
  using namespace depthwise;
  const int lane = static_cast<int>(threadIdx.x), set = page / p.groups, group = page % p.groups;
  const std::int64_t column = group * p.group_stride / 16 * 16;
  if (p.as_box) {
    if (lane > 0) return;
    expect_bytes(barrier, static_cast<unsigned>(p.rows * p.pitch));
    load_box(to, p.map, static_cast<int>(column / kPieceUnit), 0, 0, set * p.rows, barrier);
    return;
  }
  for (int row = lane; row < p.rows; row += 32) {
    const char* const from = p.data + (std::int64_t{set} * p.rows + row) * p.row_stride + column + p.skew;
    expect_bytes(barrier, static_cast<unsigned>(p.bytes));
    load_bytes(to + static_cast<unsigned>(row * p.pitch + p.place), from, static_cast<unsigned>(p.bytes),
               barrier);
  }
}
#endif

/// One warp a block.
__global__ void bring_pages(const __grid_constant__ Pages p) {
#if __CUDA_ARCH__ >= 900
  using namespace depthwise;
  extern __shared__ uint4 shared[];
  const unsigned slots = shared_address(shared),
                 full = slots + static_cast<unsigned>(p.slots * p.page_bytes());
  if (threadIdx.x == 0)
    for (int s = 0; s < p.slots; ++s)
      make_barrier(full + 8u * static_cast<unsigned>(s), p.as_box ? 1 : static_cast<unsigned>(p.rows));
  __syncthreads();
  const auto slot_of = [&](int n) { return static_cast<unsigned>(n % p.slots); };
  const auto ask = [&](int n, int page) {
    ask_for(p, page, slots + slot_of(n) * static_cast<unsigned>(p.page_bytes()), full + 8 * slot_of(n));
  };
  const int step = static_cast<int>(gridDim.x), first = static_cast<int>(blockIdx.x);
  for (int n = 0; n < p.slots && first + n * step < p.pages; ++n) ask(n, first + n * step);
  for (int n = 0; first + n * step < p.pages; ++n) {
    wait_for_phase(full + 8 * slot_of(n), static_cast<unsigned>(n / p.slots % 2));
    synchronize_warp();
    if (first + (n + p.slots) * step < p.pages) ask(n, first + (n + p.slots) * step);
  }
#endif
}

/// Bytes a second of all pages, in blocks of which a multiprocessor has so many.
double rate_of(const Pages& pages, int blocks_of_sm, const Timer& timer) {
  const std::size_t shared =
      static_cast<std::size_t>(pages.slots) * (static_cast<std::size_t>(pages.page_bytes()) + 8);
  check_cuda(cudaFuncSetAttribute(bring_pages, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared)));
  const double ms = timer.of_graph(1, [&](std::size_t) {
    bring_pages<<<static_cast<unsigned>(kBlocks * blocks_of_sm), 32, shared,
                  detail::cuda::stream_of(Device::cuda())>>>(pages);
    check_cuda(cudaGetLastError());
  });
  return 1e3 * static_cast<double>(pages.pages) * pages.rows * pages.bytes / ms;
}

/// As many slots as fit beside the other blocks, 16 at most.
int slots_for(const Pages& pages, int blocks_of_sm) {
  const int bytes = 200 * 1024 / blocks_of_sm;
  return std::min(16, bytes / (pages.page_bytes() + 8));
}

nlohmann::json runs(const Arena& arena, const Timer& timer) {
  std::printf("%8s %10s %10s %8s\n", "bytes", "in memory", "in shared", "TB/s");
  nlohmann::json all = nlohmann::json::array();
  for (const int bytes : {6272, 12544})
    for (const int skew : {0, 16, 32, 64})
      for (const int place : {0, 16, 32, 64}) {
        if (place != 0 && place != skew) continue;
        Pages p;
        p.data = reinterpret_cast<const char*>(arena.at(0));
        p.bytes = p.pitch = bytes, p.skew = skew, p.place = place;
        p.row_stride = (bytes + 127) / 128 * 128;
        p.pages = static_cast<int>((arena.bytes() - 128) / static_cast<std::size_t>(p.row_stride));
        p.slots = slots_for(p, 2);
        const double rate = rate_of(p, 2, timer);
        std::printf("%8d %10d %10d %8.2f\n", bytes, skew, place, rate * 1e-12);
        all.push_back({{"bytes", bytes}, {"in_memory", skew}, {"in_shared", place}, {"bytes_per_s", rate}});
      }
  return all;
}

nlohmann::json images(const Arena& arena, const Timer& timer) {
  constexpr int kImage = 94080;  // 960 planes of 7x7 numbers of sixteen bits
  std::printf("\n%8s %7s %7s %9s %8s  TB/s\n", "bytes", "images", "warps", "copies", "a box");
  nlohmann::json all = nlohmann::json::array();
  for (const int bytes : {208, 392, 784, 1568})
    for (const int rows : {16, 32})
      for (const int warps : {1, 2}) {
        double rates[2];
        for (const bool as_box : {false, true}) {
          Pages p;
          p.data = reinterpret_cast<const char*>(arena.at(0));
          p.rows = rows, p.bytes = (bytes + 15) / 16 * 16, p.as_box = as_box;
          p.pitch = p.bytes / 32 * 32 + 16;  // an odd number of sixteen bytes
          if (p.pitch < p.bytes) p.pitch += 32;
          p.row_stride = kImage, p.group_stride = bytes, p.groups = kImage / bytes;
          const int sets =
              static_cast<int>(arena.bytes() / (std::size_t{kImage} * static_cast<std::size_t>(rows)));
          p.pages = sets * p.groups, p.slots = slots_for(p, warps);
          if (as_box) {
            constexpr std::uint64_t kUnit = depthwise::kPieceUnit;
            detail::cuda::TensorBox box{.data = p.data, .by_eight_bytes = true};
            box.sizes = {kImage / kUnit, 1, 1,
                         static_cast<std::uint64_t>(sets) * static_cast<std::uint64_t>(rows)};
            box.strides = {kImage, kImage, kImage};
            box.extents = {static_cast<std::uint32_t>(p.pitch / static_cast<int>(kUnit)), 1, 1,
                           static_cast<std::uint32_t>(rows)};
            if (!detail::cuda::encode_map(box, &p.map)) throw std::runtime_error("no map of the images");
          }
          rates[as_box ? 1 : 0] = rate_of(p, warps, timer);
        }
        std::printf("%8d %7d %7d %9.2f %8.2f\n", bytes, rows, warps, rates[0] * 1e-12, rates[1] * 1e-12);
        all.push_back({{"bytes", bytes},
                       {"images", rows},
                       {"warps", warps},
                       {"copies_bytes_per_s", rates[0]},
                       {"box_bytes_per_s", rates[1]}});
      }
  return all;
}

int run(int argc, char** argv) {
  CLI::App app{"What the copy engine brings to shared memory, by how it is asked"};
  int repetitions = 21;
  std::string json;
  app.add_option("--repetitions", repetitions, "replays of which the median is taken")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--json", json, "also write the figures to this file");
  CLI11_PARSE(app, argc, argv);
  if (!default_device().is_cuda()) throw std::runtime_error(why_no_gpu());
  if (!detail::cuda::has_copy_engine(Device::cuda()))
    throw std::runtime_error("the GPU has no copy engine: that takes compute capability 9.0");
  const Arena arena(std::size_t{1} << 30);
  arena.fill(DType::BFloat16, arena.bytes());
  const Timer timer(repetitions);
  const Machine machine = this_machine();
  std::printf("%s, driver %s; clocks (now, most): %s\n", machine.gpu.c_str(), machine.driver.c_str(),
              machine.clocks.c_str());
  nlohmann::json report{{"gpu", machine.gpu}, {"driver", machine.driver}};
  report["runs"] = runs(arena, timer);
  report["images"] = images(arena, timer);
  if (!json.empty() && !(std::ofstream(json) << report.dump(1) << '\n'))
    throw std::runtime_error("cannot write " + json);
  return 0;
}

}  // namespace
}  // namespace lamella::bench

int main(int argc, char** argv) {
  try {
    return lamella::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_copies: %s\n", error.what());
    return 1;
  }
}
