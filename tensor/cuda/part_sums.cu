#include "core/cuda/launch.cuh"
#include "core/cuda/packet.cuh"
#include "tensor/kernels/part_sums.h"

namespace lamella::cuda {

using detail::GradientWrite;
using detail::PartSum;

namespace {

constexpr unsigned kThreads = 256;

/// Travels with the launch, so that a recorded one stays right.
struct SumTable {
  static constexpr int kMost = 80, kWide = 4;
  const float* from[kMost];
  float* to[kMost];
  std::int64_t part_step[kMost];
  std::uint32_t parts[kMost], numbers[kMost], row[kMost], step[kMost];
  std::uint32_t end[kMost];    ///< blocks of the tensors up to this one
  std::uint16_t lanes[kMost];  ///< neighbouring threads of a block; its slices have every so many-th part
  bool add[kMost];
  bool wide[kMost];  ///< a thread has kWide numbers instead of one
  int count;

  unsigned blocks() const { return count == 0 ? 0 : end[count - 1]; }
};
static_assert(sizeof(SumTable) <= 4096);  // the most that launch parameters may take on every GPU

/// Few lanes where there are many parts: each part is a wait for memory.
unsigned lanes_for(std::int64_t parts) { return parts < 8 ? 256 : parts < 32 ? 64 : parts < 256 ? 32 : 8; }

/// kWide neighbouring numbers a thread, of tensor number `at`.
template <int kWide>
__device__ void add_numbers(const SumTable& table, int at) {
  using Numbers = detail::cuda::Lot<float, kWide>;
  __shared__ double shared[kWide][kThreads];
  const std::uint32_t lanes = table.lanes[at], slices = kThreads / lanes;
  const std::uint32_t lane = threadIdx.x % lanes, slice = threadIdx.x / lanes;
  const std::uint32_t i = ((blockIdx.x - (at > 0 ? table.end[at - 1] : 0)) * lanes + lane) * kWide;
  const bool exists = i < table.numbers[at];
  double sum[kWide] = {};
  if (exists) {
    const std::uint32_t row = i / table.row[at];
    const std::int64_t part_step = table.part_step[at];
    const float* const from = table.from[at] + std::int64_t{row} * table.step[at] + (i - row * table.row[at]);
    const std::uint32_t parts = table.parts[at];
#pragma unroll 8
    for (std::uint32_t part = slice; part < parts; part += slices) {
      const Numbers numbers = *reinterpret_cast<const Numbers*>(from + part * part_step);
#pragma unroll
      for (int k = 0; k < kWide; ++k) sum[k] += static_cast<double>(numbers.at[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < kWide; ++k) shared[k][threadIdx.x] = sum[k];
  __syncthreads();
  if (slice > 0 || !exists) return;
  Numbers* const to = reinterpret_cast<Numbers*>(table.to[at] + i);
  Numbers result;
  if (table.add[at]) result = *to;
#pragma unroll
  for (int k = 0; k < kWide; ++k) {
    for (std::uint32_t other = 1; other < slices; ++other) sum[k] += shared[k][other * lanes + lane];
    if (table.add[at]) sum[k] += static_cast<double>(result.at[k]);
    result.at[k] = static_cast<float>(sum[k]);
  }
  *to = result;
}

__global__ void __launch_bounds__(kThreads) add_table(const __grid_constant__ SumTable table) {
  detail::cuda::wait_for_stream();
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (blockIdx.x < table.end[middle])
      high = middle;
    else
      low = middle + 1;
  }
  if (table.wide[low])
    add_numbers<SumTable::kWide>(table, low);
  else
    add_numbers<1>(table, low);
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
    const bool is_wide = each.row % SumTable::kWide == 0 && each.step % SumTable::kWide == 0 &&
                         detail::cuda::is_aligned(each.from) && detail::cuda::is_aligned(each.to.data);
    const std::int64_t of_block = lanes * (is_wide ? SumTable::kWide : 1);
    table.from[at] = each.from;
    table.to[at] = each.to.as<float>();
    table.part_step[at] = each.rows * each.step;
    table.parts[at] = static_cast<std::uint32_t>(each.parts);
    table.numbers[at] = static_cast<std::uint32_t>(numbers);
    table.row[at] = static_cast<std::uint32_t>(each.row);
    table.step[at] = static_cast<std::uint32_t>(each.step);
    table.end[at] = table.blocks() + static_cast<std::uint32_t>((numbers + of_block - 1) / of_block);
    table.lanes[at] = static_cast<std::uint16_t>(lanes);
    table.add[at] = each.write == GradientWrite::Accumulate;
    table.wide[at] = is_wide;
    ++table.count;
  }
  run();
}

}  // namespace lamella::cuda
