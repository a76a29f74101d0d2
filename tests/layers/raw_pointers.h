#pragma once

#include <initializer_list>
#include <limits>

#include "lamella/kernels/depthwise_conv2d.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"
#include "tensor/door.h"
#include "tests/support/device.h"

namespace lamella::test {

inline kernels::Operand operand(const Tensor& t) {
  const detail::ConstTensorView view = detail::read(t);
  return {view.data, view.strides};
}
inline kernels::Result result(const Tensor& t) {
  const detail::TensorView view = detail::write(t, "raw pointers");
  return {view.data, view.strides};
}

/// A problem on tensors, which own the memory that its call points to.
struct RawProblem {
  DepthwiseConv2dOptions options;
  Tensor x, w, b, gy;
  Tensor y, gx, gw, gb;  ///< poisoned
  Tensor memory;         ///< workspace
  kernels::DepthwiseConv2d call;

  RawProblem(const Shape& input, const Shape& weight, const DepthwiseConv2dOptions& given,
             MemoryFormat format = MemoryFormat::Contiguous, DType dtype = DType::Float32,
             DType parameter_dtype = DType::Float32)
      : options(given) {
    Conv2dGeometry& g = call.geometry;
    g = make_conv2d_geometry("test", input, weight, given.stride,
                             given.same_padding ? Size2(weight[2], weight[3]) : given.padding, given.dilation,
                             input[1]);
    if (given.same_padding) {
      g.padding = {(weight[2] - 1) * given.dilation.h / 2, (weight[3] - 1) * given.dilation.w / 2};
      g.out = g.in;
    }
    const auto random = [&](const Shape& shape, std::uint64_t seed, DType type) {
      return testing::random_tensor(
                 shape, seed,
                 {.dtype = type, .format = shape.size() == 4 ? format : MemoryFormat::Contiguous})
          .to(test_device());
    };
    x = random(input, 1, dtype);
    w = random(weight, 2, parameter_dtype);
    b = random({weight[0]}, 3, parameter_dtype);
    gy = random(g.output_shape(), 4, dtype);
    const auto poisoned = [](const Tensor& like) {
      Tensor t = empty_like(like);
      t.fill_(std::numeric_limits<double>::quiet_NaN());
      return t;
    };
    y = poisoned(gy), gx = poisoned(x), gw = poisoned(w), gb = poisoned(b);
    call.dtype = dtype;
    call.parameter_dtype = parameter_dtype;
    call.device = test_device();
    if (call.device.is_cuda()) call.stream = current_stream(call.device).handle;
    call.input = operand(x), call.weight = operand(w), call.bias = operand(b), call.grad_output = operand(gy);
  }

  void forward() {
    call.output = result(y);
    depthwise_conv2d_forward(call);
  }
  void backward(bool input = true, bool weight = true, bool bias = true) {
    call.grad_input = input ? result(gx) : kernels::Result{};
    call.grad_weight = weight ? result(gw) : kernels::Result{};
    call.grad_bias = bias ? result(gb) : kernels::Result{};
    call.workspace_bytes = depthwise_conv2d_workspace_bytes(call);
    if (call.workspace_bytes > 0) {
      memory = empty({call.workspace_bytes}, {.dtype = DType::UInt8, .device = call.device});
      call.workspace = result(memory).data;
    }
    depthwise_conv2d_backward(call);
  }

  /// Of the operator on tensors: output and gradients.
  Tensors expected() const {
    Tensors leaves = {x.clone(), w.clone(), b.clone()};
    for (Tensor& leaf : leaves) leaf.set_requires_grad();
    const Tensor out = depthwise_conv2d(leaves[0], leaves[1], leaves[2], options);
    out.backward(gy);
    return {out.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
  }
};

}  // namespace lamella::test
