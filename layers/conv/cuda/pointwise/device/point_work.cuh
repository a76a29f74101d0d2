#pragma once

#include "layers/depthwise_conv2d/cuda/device/work.cuh"

/// What the pointwise kernels are told: of host and device alike. A 1x1 convolution without strides is a
/// product of matrices, whose rows are the pixels of all images: x [pixels][Ci], y [pixels][Co], channels
/// side by side, w [Co][Ci].
namespace lamella::pointwise {

using depthwise::Int64;
using depthwise::TensorMap;

/// What happens to an input between memory and arithmetic: nothing, or f(scale[c] · x + shift[c]) in float32,
/// rounded once to the type. Clamp: f bounds by low and high; HardSwish: f(v) = v · clamp(v + 3, 0, 6) / 6.
enum class Load : unsigned char { Plain, Clamp, HardSwish };

/// What happens to results as they are stored; sums and moments are of rounded ones.
/// Moments: mean and sum of squared deviations of each channel of y, left by parts.
/// ClampSums, HardSwishSums: of the gradient g of a = f(scale · z + shift), where z is stored: g becomes
/// g' = g · f'(scale · z + shift); Σ g' and Σ g' · (z − center[c]) are left by parts.
enum class Hook : unsigned char { None, Moments, ClampSums, HardSwishSums };

/// scale, shift, low and high of Load and Hook; HardSwish has no bounds.
struct Factors {
  const float* scale = nullptr;  ///< [channels]
  const float* shift = nullptr;
  float low = 0, high = 0;
};

/// Work of multiply_points(): y = a(x) · wᵀ + bias, or, turned, dx = g · w, where x stands for what is read
/// and y for what is written.
struct PointWork {
  TensorMap x, weights, y, z;  ///< z: of the hooks that leave sums
  int pixels = 0;
  int outputs = 0;                    ///< channels of y, of all slices
  int slices = 1;                     ///< of Tile::kOutputs channels: of so many neighbouring blocks
  int items = 0, items_per_part = 1;  ///< tiles of Tile::kPixels pixels: of all blocks, of one
  const void* bias = nullptr;         ///< [outputs]; null: zeros
  bool bias_is_float32 = false;
  Factors load, hook;
  const float* center = nullptr;  ///< [outputs], of the hooks that leave sums
  double* parts = nullptr;        ///< of the hooks: [part][2][outputs]
};

/// Work of weigh_points(): dw[co][ci] = Σ g[p][co] · a(x[p][ci]), and the bias's Σ g[p][co], by parts.
struct WeighWork {
  TensorMap x, g;
  int pixels = 0, inputs = 0, outputs = 0;
  int input_tiles = 1, output_tiles = 1;  ///< of dw: of so many neighbouring blocks
  int items = 0, items_per_part = 1;      ///< pages of Tile::kPixels pixels
  Factors load;
  float* parts = nullptr;       ///< [part][outputs][inputs]
  float* bias_parts = nullptr;  ///< [part][outputs]
};

/// Work of finish_sums(): to[i] = or += Σ parts[p][i].
struct FinishSumsWork {
  const void* parts = nullptr;  ///< [count][rows][columns] of float, or double
  int count = 0;
  Int64 rows = 0, columns = 0;
  void* to = nullptr;
  Int64 row = 0, column = 0;  ///< strides of `to`
  bool accumulate = false;
};

}  // namespace lamella::pointwise
