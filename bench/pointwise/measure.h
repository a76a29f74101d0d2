#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../gpu_machine.h"
#include "cases.h"
#include "lamella/tensor/tensor.h"
#include "layers/conv/cuda/pointwise/pointwise.h"

/// One cell's buffers, and its work by these kernels or by cuBLASLt.
namespace lamella::bench {

class Buffers {
 public:
  /// `buffers` sets of images in the arena, filled with random numbers.
  Buffers(const Cell& cell, const Arena& arena, std::size_t buffers);
  static std::size_t bytes(const Cell& cell, std::size_t buffers);

  /// The cell's work with set number i % buffers. False: these kernels cannot do it.
  bool run(std::size_t i) const;
  /// The bare pass by conv2d_forward() and its like.
  void run_library(std::size_t i) const;

 private:
  struct Set {
    detail::TensorView x, y, z;  ///< before and behind the convolution, or their gradients
  };
  Cell cell_;
  std::vector<Set> sets_;
  detail::TensorView weight_, dweight_;
  Tensor factors_;
};

}  // namespace lamella::bench
