#pragma once

#include "core/cuda/packet.cuh"
#include "optim/cuda/walk.cuh"

/// Elementwise changes of many tensors in few launches. Such a change is a struct Op with
/// - kOperands, how many tensors of one shape belong together (some may be missing), and kWritten, with bit i
///   set where operand i is changed;
/// - Constants<T>, what is the same for all elements of a tensor, computed by constants<T>(operands, step) on
///   the device; a member `idle` in it tells that there is nothing to do;
/// - apply(constants, numbers), which changes one number of each operand;
/// - if it likes, skip: a flag in device memory; where it is not null and what is there is not 0, nothing is
///   changed.
namespace lamella::cuda {

template <class Op, class T>
using ConstantsOf = typename Op::template Constants<T>;

/// Lot i of every operand.
template <class Op, class T, int V>
__device__ void update_lot(const ConstantsOf<Op, T>& constants, T* const (&at)[Op::kOperands], int i) {
  constexpr int N = Op::kOperands;
  using Lot = detail::cuda::Lot<T, V>;
  Lot lots[N];
#pragma unroll
  for (int n = 0; n < N; ++n) lots[n] = at[n] != nullptr ? reinterpret_cast<const Lot*>(at[n])[i] : Lot{};
#pragma unroll
  for (int v = 0; v < V; ++v) {
    T numbers[N];
#pragma unroll
    for (int n = 0; n < N; ++n) numbers[n] = lots[n].at[v];
    Op::apply(constants, numbers);
#pragma unroll
    for (int n = 0; n < N; ++n) lots[n].at[v] = numbers[n];
  }
#pragma unroll
  for (int n = 0; n < N; ++n)
    if ((Op::kWritten >> n & 1u) != 0 && at[n] != nullptr) reinterpret_cast<Lot*>(at[n])[i] = lots[n];
}

__device__ inline bool is_set(const std::int32_t* flag) { return flag != nullptr && *flag != 0; }

template <class Op, class C>
__device__ bool is_idle(const Op& op, const C& constants) {
  if constexpr (requires { op.skip; })
    if (is_set(op.skip)) return true;
  if constexpr (requires { constants.idle; })
    return constants.idle;
  else
    return false;
}

template <class T, class Op>
__global__ void __launch_bounds__(kWalkThreads)
    update_dense(const DenseTable<Op::kOperands> table, const Op op) {
  detail::cuda::wait_for_stream();
  constexpr int N = Op::kOperands, kSize = 16 / sizeof(T);
  // Powers and roots of the step number: by one thread for all.
  __shared__ ConstantsOf<Op, T> shared;
  const auto place = table.place(blockIdx.x, kWalkChunk<T>);
  if (threadIdx.x == 0) shared = op.template constants<T>(table.data[place.item], table.step[place.item]);
  __syncthreads();
  const ConstantsOf<Op, T> constants = shared;
  if (is_idle(op, constants)) return;
  T* at[N];
#pragma unroll
  for (int n = 0; n < N; ++n) {
    T* const data = static_cast<T*>(table.data[place.item][n]);
    at[n] = data != nullptr ? data + place.begin : nullptr;
  }
  const int lots = table.in_packets[place.item] ? place.count / kSize : 0;
  for (int i = threadIdx.x; i < lots; i += kWalkThreads) update_lot<Op, T, kSize>(constants, at, i);
  for (int i = lots * kSize + threadIdx.x; i < place.count; i += kWalkThreads)
    update_lot<Op, T, 1>(constants, at, i);
}

template <class T, class Op>
__global__ void __launch_bounds__(kWalkThreads)
    update_strided(const StridedTensor<Op::kOperands> tensor, const Op op) {
  detail::cuda::wait_for_stream();
  constexpr int N = Op::kOperands;
  __shared__ ConstantsOf<Op, T> shared;
  if (threadIdx.x == 0) shared = op.template constants<T>(tensor.data, tensor.step);
  __syncthreads();
  const ConstantsOf<Op, T> constants = shared;
  if (is_idle(op, constants)) return;
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < tensor.index.total; i += step) {
    std::int64_t offset[N];
    tensor.offsets(i, offset);
    T* at[N];
#pragma unroll
    for (int n = 0; n < N; ++n)
      at[n] = tensor.data[n] != nullptr ? static_cast<T*>(tensor.data[n]) + offset[n] : nullptr;
    update_lot<Op, T, 1>(constants, at, 0);
  }
}

/// Changes all items; `what` names the kernels in an error.
template <class Op>
void update(const char* what, const WalkItems<Op::kOperands>& items, const Op& op) {
  // The most that launch parameters may take on every GPU.
  static_assert(sizeof(DenseTable<Op::kOperands>) + sizeof(Op) <= 4096);
  if (items.empty()) return;
  check_types(items);
  const Device device = launching_device();
  const auto run = [&]<class T>(T) {
    walk<T>(
        items,
        [&](const DenseTable<Op::kOperands>& table) {
          detail::cuda::launch_early(what, device, table.blocks(), kWalkThreads, 0, update_dense<T, Op>,
                                     table, op);
        },
        [&](const StridedTensor<Op::kOperands>& tensor) {
          detail::cuda::launch_early(what, device, detail::cuda::blocks_for(tensor.index.total, kWalkThreads),
                                     kWalkThreads, 0, update_strided<T, Op>, tensor, op);
        });
  };
  run(float());
  run(double());
}

}  // namespace lamella::cuda
