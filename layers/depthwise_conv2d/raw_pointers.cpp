#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "core/check.h"
#include "core/workspace.h"
#include "lamella/core/stream.h"
#include "lamella/kernels/depthwise_conv2d.h"
#include "layers/depthwise_conv2d/kernels.h"
#include "tensor/dispatch.h"

namespace lamella::kernels {
namespace {

using detail::ConstTensorView;
using detail::DepthwiseFusion;
using detail::GradientWrite;
using detail::TensorView;

constexpr const char* kForward = "kernels::depthwise_conv2d_forward";
constexpr const char* kBackward = "kernels::depthwise_conv2d_backward";

std::string describe(const DepthwiseConv2d& call) {
  const Conv2dGeometry& g = call.geometry;
  return detail::concat(" (input ", g.input_shape().to_string(), " ", name(call.dtype), " ",
                        call.device.to_string(), ", weight ", g.weight_shape().to_string(), " ",
                        name(call.parameter_dtype), ", output ", g.output_shape().to_string(), ")");
}

/// `out` may be what the padding gives, or what it gives with one more at the end.
void check_axis(const char* op, const char* axis, std::int64_t in, std::int64_t out, std::int64_t kernel,
                std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  constexpr std::int64_t kMostPadding = std::int64_t{1} << 20;
  LAMELLA_CHECK(ShapeError, padding <= kMostPadding, op, ": padding ", padding, " must be at most ",
                kMostPadding);
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  if (in >= 1 && in < most && out == conv_output_size(op, in + 1, kernel, stride, padding, dilation)) return;
  const std::int64_t wanted = conv_output_size(op, in, kernel, stride, padding, dilation);
  LAMELLA_CHECK(ShapeError, out == wanted, op, ": output ", axis, " is ", out, ", must be ", wanted,
                " (input ", in, ", kernel ", kernel, ", stride ", stride, ", padding ", padding,
                ", dilation ", dilation, ")");
}

void check_geometry(const char* op, const DepthwiseConv2d& call) {
  const Conv2dGeometry& g = call.geometry;
  LAMELLA_CHECK(ShapeError, g.batch >= 0, op, ": batch size must not be negative", describe(call));
  LAMELLA_CHECK(
      ShapeError,
      g.in_channels >= 1 && g.out_channels >= 1 && g.out_channels % g.in_channels == 0 && g.is_depthwise(),
      op, ": groups must equal the ", g.in_channels,
      " input channels, and divide the output channels; groups ", g.groups, describe(call));
  check_axis(op, "height", g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
  check_axis(op, "width", g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  // Throws where they cannot be counted.
  g.input_shape().product();
  g.output_shape().product();
  g.weight_shape().product();
}

void check_types(const char* op, const DepthwiseConv2d& call) {
  LAMELLA_CHECK(DTypeError, is_floating(call.dtype), op, ": input must be floating", describe(call));
  LAMELLA_CHECK(DTypeError,
                call.parameter_dtype == call.dtype ||
                    (call.parameter_dtype == DType::Float32 && call.dtype != DType::Float64),
                op, ": weight and bias must be ", name(call.dtype),
                " like the input, or float32 for a half-precision input", describe(call));
}

Strides strides_of(const char* op, const char* what, const Strides& given, const Shape& shape) {
  if (given.empty()) return dense_strides(shape);
  LAMELLA_CHECK(ShapeError, given.size() == shape.size(), op, ": ", what, " ", shape.to_string(), " has ",
                shape.size(), " axes, but strides ", given.to_string());
  return given;
}

/// Checks and views of everything.
class Views {
 public:
  Views(const char* op, const DepthwiseConv2d& call) : op_(op), call_(call) {
    check_types(op, call);
    check_geometry(op, call);
    const Conv2dGeometry& g = call.geometry;
    const Shape bias_shape{g.out_channels};
    input = view("input", call.input, g.input_shape(), call.dtype);
    weight = view("weight", call.weight, g.weight_shape(), call.parameter_dtype);
    bias = view("bias", call.bias, bias_shape, call.parameter_dtype);
    grad_output = view("grad_output", call.grad_output, g.output_shape(), call.dtype);
    output = view("output", call.output, g.output_shape(), call.dtype);
    grad_input = view("grad_input", call.grad_input, g.input_shape(), call.dtype);
    grad_weight = view("grad_weight", call.grad_weight, g.weight_shape(), call.parameter_dtype);
    grad_bias = view("grad_bias", call.grad_bias, bias_shape, call.parameter_dtype);
    if (call.transform.scale != nullptr) {
      need("transform.shift", call.transform.shift);
      fusion.scale = call.transform.scale, fusion.shift = call.transform.shift;
      fusion.low = call.transform.low, fusion.high = call.transform.high;
    }
  }

  bool weighs() const { return grad_weight.data != nullptr || grad_bias.data != nullptr; }

  void check_forward() {
    if (call_.statistics.mean != nullptr || call_.statistics.variance != nullptr) {
      need("statistics.mean", call_.statistics.mean);
      need("statistics.variance", call_.statistics.variance);
      fusion.mean = call_.statistics.mean, fusion.variance = call_.statistics.variance;
    }
    if (call_.geometry.batch == 0) return;
    need("input", input.data);
    need("weight", weight.data);
    need("output", output.data);
  }
  void check_backward() {
    if (call_.sums.sum != nullptr || call_.sums.product != nullptr) {
      need("sums.sum", call_.sums.sum);
      need("sums.product", call_.sums.product);
      need("sums.center", call_.sums.center);
      need("transform.scale, which sums need,", fusion.scale);
      fusion.center = call_.sums.center, fusion.sum = call_.sums.sum, fusion.product = call_.sums.product;
      if (call_.geometry.batch > 0) {
        need("grad_input, which sums need,", grad_input.data);
        need("input", input.data);
      }
    }
    if (call_.geometry.batch == 0 || (grad_input.data == nullptr && !weighs())) return;
    need("grad_output", grad_output.data);
    if (grad_input.data != nullptr) need("weight", weight.data);
    if (weighs()) need("input", input.data);
  }

  ConstTensorView input, weight, bias, grad_output;
  TensorView output, grad_input, grad_weight, grad_bias;
  DepthwiseFusion fusion;  ///< what the checked pass has of it

 private:
  ConstTensorView view(const char* what, const Operand& from, const Shape& shape, DType dtype) const {
    if (from.data == nullptr) return {nullptr, shape, dense_strides(shape), dtype, call_.device};
    return {from.data, shape, strides_of(op_, what, from.strides, shape), dtype, call_.device};
  }
  TensorView view(const char* what, const Result& to, const Shape& shape, DType dtype) const {
    if (to.data == nullptr) return {};
    const Strides strides = strides_of(op_, what, to.strides, shape);
    for (int axis = 0; axis < shape.size(); ++axis)
      LAMELLA_CHECK(ShapeError, strides[axis] != 0 || shape[axis] <= 1, op_, ": ", what, " ",
                    shape.to_string(), " with strides ", strides.to_string(), " overlaps itself");
    return {to.data, shape, strides, dtype, call_.device};
  }
  void need(const char* what, const void* data) const {
    LAMELLA_CHECK(ShapeError, data != nullptr, op_, ": ", what, " is missing: its address is null",
                  describe(call_));
  }

  const char* op_;
  const DepthwiseConv2d& call_;
};

/// While it lives, kernels of this thread run on the caller's stream and in its workspace.
class Borrowed {
 public:
  explicit Borrowed(const DepthwiseConv2d& call) {
    if (call.device.is_cpu()) return;
    stream_.emplace(Stream{call.device, call.stream});
    memory_.emplace(call.device, call.workspace, call.workspace != nullptr ? call.workspace_bytes : 0);
  }

 private:
  std::optional<StreamGuard> stream_;
  std::optional<detail::LentMemory> memory_;
};

GradientWrite write_of(const DepthwiseConv2d& call) {
  return call.accumulate ? GradientWrite::Accumulate : GradientWrite::Overwrite;
}

std::int64_t prepare(const DepthwiseConv2d& call, const Views& v) {
  std::int64_t bytes = 0;
  LAMELLA_KERNEL(call.device,
                 depthwise_conv2d_prepare(call.geometry, v.fusion, v.input, v.weight, v.output, v.grad_output,
                                          v.grad_input, write_of(call), v.grad_weight, v.grad_bias, bytes));
  return bytes;
}

std::int64_t prepare_here(const DepthwiseConv2d& call, const Views& v) {
  const Borrowed borrowed(call);
  return prepare(call, v);
}

void check_workspace(const char* op, const DepthwiseConv2d& call, std::int64_t bytes) {
  LAMELLA_CHECK(Error, bytes == 0 || (call.workspace != nullptr && call.workspace_bytes >= bytes), op, ": ",
                bytes, " bytes of workspace are needed, and ",
                call.workspace != nullptr ? call.workspace_bytes : 0, " are given", describe(call));
  LAMELLA_CHECK(Error, reinterpret_cast<std::uintptr_t>(call.workspace) % 16 == 0 || bytes == 0, op,
                ": the workspace must be aligned to 16 bytes", describe(call));
}

}  // namespace

void depthwise_conv2d_forward(const DepthwiseConv2d& call) {
  Views v(kForward, call);
  v.check_forward();
  if (v.output.data == nullptr && v.fusion.mean == nullptr) return;
  const Borrowed borrowed(call);
  if (v.fusion.mean != nullptr) check_workspace(kForward, call, prepare(call, v));
  if (v.fusion.any())
    LAMELLA_KERNEL(call.device, depthwise_conv2d_forward_fused(call.geometry, v.fusion, v.input, v.weight,
                                                               v.bias, v.output));
  else
    LAMELLA_KERNEL(call.device, depthwise_conv2d_forward(call.geometry, v.input, v.weight, v.bias, v.output));
}

void depthwise_conv2d_backward(const DepthwiseConv2d& call) {
  Views v(kBackward, call);
  v.check_backward();
  v.output = {};
  const Borrowed borrowed(call);
  const GradientWrite write = write_of(call);
  if (!v.weighs() && v.fusion.sum == nullptr) {
    if (v.grad_input.data != nullptr)
      LAMELLA_KERNEL(call.device, depthwise_conv2d_backward_input(call.geometry, v.grad_output, v.weight,
                                                                  v.grad_input, write));
    return;
  }
  check_workspace(kBackward, call, prepare(call, v));
  if (v.fusion.any())
    LAMELLA_KERNEL(call.device, depthwise_conv2d_backward_fused(call.geometry, v.fusion, v.grad_output,
                                                                v.input, v.weight, v.grad_input, write,
                                                                v.grad_weight, write, v.grad_bias, write));
  else if (v.grad_input.data != nullptr)
    LAMELLA_KERNEL(call.device,
                   depthwise_conv2d_backward(call.geometry, v.grad_output, v.input, v.weight, v.grad_input,
                                             write, v.grad_weight, write, v.grad_bias, write));
  else
    LAMELLA_KERNEL(call.device, depthwise_conv2d_backward_weight(call.geometry, v.grad_output, v.input,
                                                                 v.grad_weight, write, v.grad_bias, write));
}

std::int64_t depthwise_conv2d_workspace_bytes(const DepthwiseConv2d& call) {
  Views v(kBackward, call);
  std::int64_t bytes = 0;
  // A call that is set up for the forward may name sums, too.
  if (v.grad_input.data != nullptr || v.weighs()) {
    v.check_backward();
    v.output = {};
    if (v.weighs() || v.fusion.sum != nullptr) bytes = prepare_here(call, v);
  }
  if (call.output.data == nullptr || call.statistics.mean == nullptr) return bytes;
  Views forward(kForward, call);
  forward.check_forward();
  return std::max(bytes, prepare_here(call, forward));
}

void depthwise_conv2d_prepare(const DepthwiseConv2d& call) {
  Views v(call.output.data != nullptr ? kForward : kBackward, call);
  if (call.output.data != nullptr)
    v.check_forward();
  else
    v.check_backward();
  prepare_here(call, v);
}

}  // namespace lamella::kernels
