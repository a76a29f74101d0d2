#pragma once

#include "diagonals.cuh"
#include "matrices.cuh"

/// Both gradients of dense planes (NCHW) of sixteen-bit numbers by the matrix units, in one launch.
namespace lamella::depthwise {

/// Some blocks compute the input's gradient, others the weight's, each as it would alone. Both have the same
/// parts of the images, and blocks of one part take turns in being of either kind: so they run side by side,
/// and what one has brought of the output's gradient is still in the second-level cache for the other.
/// kInput, kWeight: multiply_matrices and weigh_diagonals, with all their arguments.
template <auto kInput, auto kWeight, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_pairs(const PairWork work) {
  const int input = work.input_groups, all = input + work.weight_groups;
  const int part = static_cast<int>(blockIdx.x) / all, number = static_cast<int>(blockIdx.x) % all;
  const auto inputs_of = [&](int blocks) {
    return static_cast<int>(static_cast<Int64>(blocks) * input / all);
  };
  const int inputs_before = inputs_of(number);
  if (inputs_of(number + 1) > inputs_before)
    kInput(work.input, part * input + inputs_before);
  else
    kWeight(work.weight, part * work.weight_groups + number - inputs_before);
}

}  // namespace lamella::depthwise
