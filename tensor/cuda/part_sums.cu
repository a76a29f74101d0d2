#include "core/cuda/launch.cuh"
#include "tensor/kernels/part_sums.h"

namespace lamella::cuda {

using detail::GradientWrite;
using detail::PartSum;

namespace {

constexpr unsigned kThreads = 256;

/// Travels with the launch, so that a recorded one stays right.
struct SumTable {
  static constexpr int kMost = 80;
  const float* from[kMost];
  float* to[kMost];
  std::int64_t part_step[kMost];
  std::uint32_t parts[kMost], numbers[kMost], row[kMost], step[kMost];
  std::uint32_t end[kMost];    ///< blocks of the tensors up to this one
  std::uint16_t lanes[kMost];  ///< neighbouring numbers of a block; its slices have every so many-th part
  bool add[kMost];
  int count;

  unsigned blocks() const { return count == 0 ? 0 : end[count - 1]; }
};
static_assert(sizeof(SumTable) <= 4096);  // the most that launch parameters may take on every GPU

/// Few lanes where there are many parts: each part is a wait for memory.
unsigned lanes_for(std::int64_t parts) { return parts < 8 ? 256 : parts < 32 ? 64 : parts < 256 ? 32 : 8; }

__global__ void __launch_bounds__(kThreads) add_table(const __grid_constant__ SumTable table) {
  detail::cuda::wait_for_stream();
  __shared__ double shared[kThreads];
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (blockIdx.x < table.end[middle])
      high = middle;
    else
      low = middle + 1;
  }
  const std::uint32_t lanes = table.lanes[low], slices = kThreads / lanes;
  const std::uint32_t lane = threadIdx.x % lanes, slice = threadIdx.x / lanes;
  const std::uint32_t i = (blockIdx.x - (low > 0 ? table.end[low - 1] : 0)) * lanes + lane;
  const bool exists = i < table.numbers[low];
  double sum = 0;
  if (exists) {
    const std::uint32_t row = i / table.row[low];
    const std::int64_t part_step = table.part_step[low];
    const float* const from =
        table.from[low] + std::int64_t{row} * table.step[low] + (i - row * table.row[low]);
    const std::uint32_t parts = table.parts[low];
#pragma unroll 8
    for (std::uint32_t part = slice; part < parts; part += slices)
      sum += static_cast<double>(from[part * part_step]);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (slice > 0 || !exists) return;
  for (std::uint32_t other = 1; other < slices; ++other) sum += shared[other * lanes + lane];
  float& to = table.to[low][i];
  if (table.add[low]) sum += static_cast<double>(to);
  to = static_cast<float>(sum);
}

}  // namespace

void add_part_sums(const std::vector<PartSum>& all) {
  SumTable table{};
  const auto run = [&] {
    if (table.count > 0)
      detail::cuda::launch_early("add_part_sums", all.front().to.device, table.blocks(), kThreads, 0,
                                 add_table, table);
    table.count = 0;
  };
  for (const PartSum& each : all) {
    const std::int64_t numbers = each.rows * each.row;
    if (numbers == 0) continue;
    if (table.count == SumTable::kMost) run();
    const auto at = static_cast<std::size_t>(table.count);
    const unsigned lanes = lanes_for(each.parts);
    table.from[at] = each.from;
    table.to[at] = each.to.as<float>();
    table.part_step[at] = each.rows * each.step;
    table.parts[at] = static_cast<std::uint32_t>(each.parts);
    table.numbers[at] = static_cast<std::uint32_t>(numbers);
    table.row[at] = static_cast<std::uint32_t>(each.row);
    table.step[at] = static_cast<std::uint32_t>(each.step);
    table.end[at] = table.blocks() + static_cast<std::uint32_t>((numbers + lanes - 1) / lanes);
    table.lanes[at] = static_cast<std::uint16_t>(lanes);
    table.add[at] = each.write == GradientWrite::Accumulate;
    ++table.count;
  }
  run();
}

}  // namespace lamella::cuda
