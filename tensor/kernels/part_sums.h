#pragma once

#include <vector>

#include "tensor/view.h"

namespace lamella::detail {

/// A float32 tensor that is to become the sum of `parts`: of as many [rows][step] numbers each, of which the
/// first `row` of a row are the tensor's, in row-major order.
struct PartSum {
  const float* from = nullptr;
  std::int64_t parts = 0, rows = 0, row = 0, step = 0;
  TensorView to;  ///< lies row-major without gaps; fewer than 2^30 numbers
  GradientWrite write = GradientWrite::Overwrite;
};

}  // namespace lamella::detail

namespace lamella::cpu {

/// Adds the parts of each up, in their order and in float64. Many take few launches.
void add_part_sums(const std::vector<detail::PartSum>& all);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::add_part_sums) add_part_sums;

}  // namespace lamella::cuda
