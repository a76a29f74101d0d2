#pragma once

#include <cstdint>
#include <limits>

#include "lamella/core/device.h"
#include "lamella/core/dtype.h"
#include "lamella/core/export.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/shape.h"

/// @file
/// Experimental: the depthwise convolution's kernels for other programs, on pointers to memory that is
/// theirs, and on their stream. May change in any version; what is stable is depthwise_conv2d() on tensors.
///
///   output[n, c·m + j, oh, ow] = bias[c·m + j]
///       + Σ_{kh,kw} weight[c·m + j, 0, kh, kw] · input[n, c, oh·s_h − p_h + kh·d_h, ow·s_w − p_w + kw·d_w]
///
/// with m = out_channels / in_channels and zero outside the input; and the gradients of that. On a GPU the
/// functions queue work on the given stream and return: they never wait for it, take no memory of the GPU,
/// and may be called while the stream is captured into a graph. The same arguments give the same bits. Any
/// thread may call them.
///
/// ```
/// lm::kernels::DepthwiseConv2d call;
/// call.geometry = lm::make_conv2d_geometry("mine", {32, 64, 56, 56}, {64, 1, 3, 3}, 1, 1, 1, 64);
/// call.device = lm::Device::cuda();
/// call.stream = stream;  // a cudaStream_t
/// call.input.data = x;
/// call.weight.data = w;
/// call.output.data = y;
/// lm::kernels::depthwise_conv2d_forward(call);
/// ```
namespace lamella::kernels {

/// Something that is read.
struct Operand {
  const void* data = nullptr;  ///< the first element, in memory of the device; null: there is none
  Strides strides;             ///< in elements, one for each axis; empty: dense and row-major
};

/// Something that is written. It may not overlap itself or an operand.
struct Result {
  void* data = nullptr;  ///< the first element, in memory of the device; null: it is not wanted
  Strides strides;       ///< in elements, one for each axis; empty: dense and row-major
};

/// What happens to the input where it is read, as by a batch norm and an activation of the ReLU family that
/// nobody has applied yet: with z at call.input, the convolution's input is clamp(scale[c] · z + shift[c],
/// low, high), which may be rounded to the type of z. Padding is zero all the same, not transformed zeros.
/// The bounds of ReLU are 0 and infinity, those of ReLU6 0 and 6, and those here let all numbers pass.
struct InputTransform {
  const float* scale = nullptr;  ///< [C], of the device, without gaps; null: the input is taken as it is
  const float* shift = nullptr;  ///< [C]
  float low = -std::numeric_limits<float>::infinity();  ///< the least value
  float high = std::numeric_limits<float>::infinity();  ///< the largest
};

/// What a batch norm of the output needs, left by the forward: of each channel the mean and the biased
/// variance, over N, OH and OW, of the results with their bias: as they are stored or, where that is quicker,
/// before they are rounded to the output's type. An empty batch has zeros.
struct OutputStatistics {
  float* mean = nullptr;      ///< [C·m], of the device; null: not wanted
  float* variance = nullptr;  ///< [C·m], both or none
};

/// What the gradient of the batch norm before the InputTransform needs, left by the backward that makes
/// grad_input. That is masked by the clamp's derivative then: it is g where low < scale[c] · z + shift[c] <
/// high, and zero elsewhere and where that is NaN. Sums are over N, H and W, of g as it
/// is stored or before it is rounded, and of this call alone where it accumulates.
struct InputGradientSums {
  const float* center = nullptr;  ///< [C], of the device: what z is measured from, as its mean
  float* sum = nullptr;           ///< [C]: Σ g; null: not wanted, and grad_input is not masked
  float* product = nullptr;       ///< [C]: Σ g · (z - center[c])
};

/// Arguments of all functions here; each says which of them it reads. Dense NCHW and NHWC are fast, in one of
/// the two throughout; other strides are right. Addresses need no alignment but that of their type; those of
/// 16 bytes are fastest.
struct DepthwiseConv2d {
  /// Every size: see make_conv2d_geometry(), with groups == in_channels. `out` may have one row or column
  /// more than conv_output_size() says: the padding at the end is then larger by one, as for padding that
  /// keeps the size with a kernel of even extent.
  Conv2dGeometry geometry;
  DType dtype = DType::Float32;  ///< of input, output and their gradients: a floating type
  /// Of weight, bias and their gradients: `dtype`, or float32 beside float16 or bfloat16.
  DType parameter_dtype = DType::Float32;
  Device device;           ///< the CPU or a GPU
  void* stream = nullptr;  ///< of a GPU: the cudaStream_t to work on; null: the legacy default stream

  Operand input;        ///< [N,C,H,W]
  Operand weight;       ///< [C·m,1,kh,kw]
  Operand bias;         ///< [C·m]; null: none
  Operand grad_output;  ///< [N,C·m,OH,OW]
  Result output;        ///< [N,C·m,OH,OW]
  Result grad_input;    ///< [N,C,H,W]
  Result grad_weight;   ///< [C·m,1,kh,kw]
  Result grad_bias;     ///< [C·m]
  /// Gradients are added to what the results hold, in place of replacing it.
  bool accumulate = false;

  InputTransform transform;     ///< of all passes that read the input
  OutputStatistics statistics;  ///< of the forward
  InputGradientSums sums;       ///< of the backward: needs grad_input, input and a transform

  /// Memory of the device for sums on the way to grad_weight, grad_bias, statistics and sums, aligned to 16
  /// bytes: as many bytes as depthwise_conv2d_workspace_bytes() says. May be used again by later work on the
  /// stream.
  void* workspace = nullptr;
  std::int64_t workspace_bytes = 0;  ///< how many bytes there are
};

/// Writes `output`, completely, from `input`, `weight` and `bias`, and `statistics` if wanted. Throws
/// ShapeError, DTypeError or DeviceError, naming sizes and types, where arguments do not fit or are missing,
/// or the device is not there, and Error where the workspace is too small for `statistics`; nothing is
/// written then.
LAMELLA_API void depthwise_conv2d_forward(const DepthwiseConv2d& call);

/// Writes those of `grad_input`, `grad_weight` and `grad_bias` that are not null: the first from
/// `grad_output` and `weight`, the others from `grad_output` and `input`; in one pass over `grad_output`
/// where that is faster. With none of them it does nothing. Writes `sums` if wanted, from `input` too. Throws
/// as depthwise_conv2d_forward(), and Error where the workspace is too small.
LAMELLA_API void depthwise_conv2d_backward(const DepthwiseConv2d& call);

/// The bytes of workspace that depthwise_conv2d_backward() needs for the same arguments, and
/// depthwise_conv2d_forward(), if there are an output and statistics; often 0. Of addresses, only which are
/// null and how the others are aligned matters, and the workspace's may be null. Throws as
/// depthwise_conv2d_forward().
LAMELLA_API std::int64_t depthwise_conv2d_workspace_bytes(const DepthwiseConv2d& call);

/// Chooses and compiles the kernels for the same arguments, whatever their addresses of the same alignment:
/// the forward's if `output` is not null, else those of depthwise_conv2d_backward(). The first call for a
/// geometry does this on its own, also during a capture, and takes up to some seconds then, unless an earlier
/// process has left the kernels in the folder of compiled ones. Throws as depthwise_conv2d_forward().
LAMELLA_API void depthwise_conv2d_prepare(const DepthwiseConv2d& call);

}  // namespace lamella::kernels
