#pragma once

#include "primitives.cuh"

/// Dilation divided out. With d = gcd(stride, dilation), S = stride / d and D = dilation / d, the outputs
/// o = ρ + D·t of one residue ρ read the inputs
///   o · stride + k · dilation − padding = (ρ · stride − padding) + dilation · (S·t + k),
/// so within the class of ρ the problem is one of stride S without dilation, on every D-th output and every dilation-th
/// input. The D classes share no input unless d > 1; then inputs of the other residues modulo d are read by none.
namespace lamella::depthwise {

/// One axis.
struct Axis {
  int input = 0, output = 0;  ///< sizes
  int stride = 1;             ///< before division
  int padding = 0;
  int input_step = 1;   ///< from one input of a class to the next: the dilation
  int output_step = 1;  ///< from one output of a class to the next, and the number of classes

  /// Input 0 of a class; may be negative.
  __host__ __device__ int origin(int residue) const { return residue * stride - padding; }
  /// Outputs of a class.
  __host__ __device__ int outputs(int residue) const {
    return (output - residue + output_step - 1) / output_step;
  }
  /// The first of a class's inputs that exists, and the one behind the last.
  __host__ __device__ int input_begin(int residue) const { return ceiling(-origin(residue), input_step); }
  __host__ __device__ int input_end(int residue) const { return ceiling(input - origin(residue), input_step); }

  __host__ __device__ static int floor(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
  __host__ __device__ static int ceiling(int a, int b) { return floor(a + b - 1, b); }
};

}  // namespace lamella::depthwise
