#pragma once

#include <cstdint>

#include "lamella/layers/conv_geometry.h"
#include "layers/depthwise_conv2d/cuda/device/work.cuh"
#include "tensor/left_parts.h"
#include "tensor/view.h"

/// What the generic kernels are told. Sizes of the geometry but those of tensors fit into 32 bits.
namespace lamella::cuda::depthwise {

/// Taps [channels, 1, kh, kw] and bias of any strides, each float32 or the type of the other tensors.
struct TapView {
  const void* taps = nullptr;
  const void* bias = nullptr;  ///< null: zeros
  DType taps_type = DType::Float32, bias_type = DType::Float32;
  std::int64_t channel = 0, row = 0, column = 0, bias_step = 0;  ///< strides
};

/// target[t] = bias + Σ taps[k] · source[t · stride − padding + k · dilation], or, where `scatters`, its
/// transpose: target[s · stride − padding + k · dilation] += taps[k] · source[s].
struct Correlation {
  detail::ConstTensorView source;
  detail::TensorView target;
  TapView taps;
  Size2 kernel, stride, padding, dilation;
  bool scatters = false;
  std::int64_t repeat = 1;  ///< target channels in a row that read one source channel
  std::int64_t reduce = 1;  ///< source channels in a row that add up to one target channel
  bool accumulate = false;
};

/// The weight gradient: sums over images and pixels of gradient times input.
struct Weighing {
  Conv2dGeometry geometry;
  detail::ConstTensorView input, gradient;
  lamella::depthwise::Transform transform;  ///< of the input; no scale: none
};

/// Where what a store hook leaves goes to: merged, in float32, side by side; or as the kernel's parts.
struct HookResults {
  float *mean = nullptr, *variance = nullptr;  ///< of Statistics: [out channels], the variance biased
  const float* center = nullptr;               ///< of NormSums: [in channels], as are the following
  float *sum = nullptr, *product = nullptr;    ///< Σ g, and Σ g · (z - center)
  detail::LeftParts* left = nullptr;           ///< where parts go that somebody else merges
};

/// A pass with a transform or a store hook, where no planned kernel can do it.
struct Fused {
  Conv2dGeometry geometry;
  detail::ConstTensorView source;  ///< the input, or the output's gradient
  detail::TensorView target;       ///< the output, or the input's gradient
  detail::ConstTensorView input;   ///< of the input's gradient: raw, for the mask
  TapView taps;
  lamella::depthwise::Transform transform;
  HookResults results;  ///< no addresses: no hook
  bool backward = false, accumulate = false;
};

/// Where the parts of a weight gradient go: sum k of channel c, of part p, is at
/// (c · (taps + 1) + k) · parts + p. The last of a channel belongs to its bias.
struct Parts {
  Device device;
  std::int64_t channels = 0;
  Size2 kernel;
  detail::TensorView weight, bias;  ///< no data: not wanted
  bool add_weight = false, add_bias = false;
  detail::GradientParts* left = nullptr;  ///< of planned kernels: where they leave the weight's parts
};

/// Adds the parts in their order and writes the gradients. `sums` are floats, or doubles for float64.
void finish_parts(const void* sums, std::int64_t parts, DType dtype, const Parts& to);

/// The same for sums that lie [part][channel][taps + 1].
void finish_rows(const float* sums, std::int64_t parts, const Parts& to);

/// Merges the parts of a store hook in their order. Behind them is place for those of hook_chunks().
void finish_statistics(float* parts, std::int64_t count, std::int64_t channels, Device device,
                       const HookResults& to);
void finish_norm_sums(float* parts, std::int64_t count, std::int64_t channels, Device device,
                      const HookResults& to);

/// Anything.
void correlate_generic(const Correlation& problem);
void weigh_generic(const Weighing& problem, const Parts& to);
/// By the definition, a result to a thread.
void fused_generic(const Fused& problem);
/// What fused_generic() takes as Workspace for a hook.
std::int64_t fused_generic_workspace(const Conv2dGeometry& geometry, bool backward);
/// What weigh_generic() takes as Workspace.
std::int64_t weigh_generic_workspace(const Weighing& problem);

}  // namespace lamella::cuda::depthwise
