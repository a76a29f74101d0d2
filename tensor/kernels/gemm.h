#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace lamella::detail {

/// A stack of matrices: element (i, j) of matrix b is data[Σ b · batch + i · row + j · column].
struct GemmOperand {
  const void* data = nullptr;
  DType dtype = DType::Float32;
  std::int64_t row = 0, column = 1;  ///< strides in elements
  Strides batch;                     ///< one per batch axis; 0 repeats the same matrix
};

/// C = A·B + bias, or C += A·B, over a batch of matrices. Along a batch axis on which C's stride is 0 the
/// products are added up. Everything is float64, or nothing is: then float16 and bfloat16 operands are
/// multiplied and added in float32 and a result of these types is rounded once, at the end.
struct Gemm {
  std::int64_t m = 0, n = 0, k = 0;  ///< A is m×k, B is k×n, C is m×n
  Dims batch;                        ///< sizes of the batch axes; none: one product
  GemmOperand a, b;
  GemmOperand bias;  ///< broadcast by strides of 0; no data: none. Ignored when accumulating.
  void* c = nullptr;
  DType c_dtype = DType::Float32;
  std::int64_t c_row = 0, c_column = 1;
  Strides c_batch;
  GradientWrite write = GradientWrite::Overwrite;
};

}  // namespace lamella::detail

namespace lamella::cpu {

/// Work is cut into blocks by shape alone and long sums are added in a fixed order, so the bits do not depend
/// on the number of threads. C must not overlap A, B or bias. May be called from inside a parallel_for.
void gemm(const detail::Gemm& problem);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::gemm) gemm;

}  // namespace lamella::cuda
