#pragma once

#include "boxes_backward.cuh"
#include "diagonals_backward.cuh"
#include "hankel_boxes.cuh"
#include "matrices_forward.cuh"
#include "positions_correlate.cuh"
#include "positions_weigh.cuh"
#include "toeplitz_boxes.cuh"

/// Both gradients in one launch, by two kernels that have one each.
namespace lamella::depthwise {

/// Some blocks compute the input's gradient, others the weight's, each as it would alone. Both kinds have the
/// same parts of the images, and blocks of one part take turns in being of either kind: so they run side by
/// side, and what one has brought of the output's gradient is still in the second-level cache for the other.
/// Blocks begin in their order, as places become free: where a kind is slower, more of its blocks are at work
/// at a time, and neither gets ahead of the other by more than the parts that are under way. So parts should
/// be many, and so small that the cache holds those.
///
/// Or all blocks of boxes are at work at once, and take every so many-th item; then the numbers of either
/// kind are such that they go through the batch in step. What is a part here is a round of blocks then.
///
/// kInput, kWeight: what a block of either kind does, such as multiply_matrices and weigh_diagonals, with all
/// their arguments. It takes kInputThreads or kWeightThreads; what else a block has ends at once.
template <class Work, auto kInput, int kInputThreads, auto kWeight, int kWeightThreads, int kBlocks>
__global__ void __launch_bounds__((kInputThreads > kWeightThreads ? kInputThreads : kWeightThreads), kBlocks)
    backward_pairs(const __grid_constant__ PairWork<Work> work) {
  const int input = work.input_groups, all = input + work.weight_groups;
  const int part = static_cast<int>(blockIdx.x) / all, thread = static_cast<int>(threadIdx.x);
  // Each part begins elsewhere: blocks that come to one multiprocessor are a fixed distance apart, and would
  // be of one kind.
  const unsigned turn = static_cast<unsigned>(part) * 0x9e3779b9u >> 16;
  const int number = static_cast<int>((blockIdx.x + turn) % static_cast<unsigned>(all));
  const auto inputs_of = [&](int blocks) {
    return static_cast<int>(static_cast<Int64>(blocks) * input / all);
  };
  const int inputs_before = inputs_of(number);
  if (inputs_of(number + 1) > inputs_before) {
    if (thread < kInputThreads) kInput(work.input, part * input + inputs_before);
  } else {
    if (thread < kWeightThreads) kWeight(work.weight, part * work.weight_groups + number - inputs_before);
  }
}

}  // namespace lamella::depthwise
