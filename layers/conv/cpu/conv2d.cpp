#include "layers/conv/cpu/dense.h"
#include "layers/conv/cpu/operands.h"
#include "layers/conv/cpu/pointwise.h"
#include "layers/conv/kernels.h"
#include "tensor/kernels/gemm.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GradientWrite;
using detail::TensorView;

namespace {

void backward_bias(const Conv2dGeometry& g, const ConstTensorView& grad_output, const TensorView& grad_bias,
                   GradientWrite write) {
  // A product with ones, so that one rule cuts and orders all long sums.
  static constexpr float kOne = 1;
  static constexpr double kOneDouble = 1;
  Gemm product;
  product.batch = {g.batch, g.out.h};
  product.m = g.out_channels;
  product.n = 1;
  product.k = g.out.w;
  product.a = image_matrix(grad_output, 1, 1);
  product.a.batch.erase(2);
  const bool wide = grad_output.dtype == DType::Float64;
  product.b = {wide ? static_cast<const void*>(&kOneDouble) : &kOne,
               wide ? DType::Float64 : DType::Float32,
               0,
               0,
               {0, 0}};
  set_target(product, {grad_bias.data, grad_bias.dtype, grad_bias.strides[0], 1, {0, 0}});
  product.write = write;
  gemm(product);
}

}  // namespace

void conv2d_forward(const Conv2dGeometry& g, const ConstTensorView& input, const ConstTensorView& weight,
                    const ConstTensorView& bias, const TensorView& output) {
  if (g.batch == 0) return;
  (is_pointwise(g) ? pointwise_forward : dense_forward)(g, input, weight, bias, output);
}

void conv2d_backward_input(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                           const ConstTensorView& weight, const TensorView& grad_input, GradientWrite write) {
  if (g.batch == 0) return;
  (is_pointwise(g) ? pointwise_backward_input : dense_backward_input)(g, grad_output, weight, grad_input,
                                                                      write);
}

void conv2d_backward_weight(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                            const ConstTensorView& input, const TensorView& grad_weight,
                            GradientWrite weight_write, const TensorView& grad_bias,
                            GradientWrite bias_write) {
  if (grad_bias.data != nullptr) backward_bias(g, grad_output, grad_bias, bias_write);
  if (grad_weight.data == nullptr) return;
  (is_pointwise(g) ? pointwise_backward_weight : dense_backward_weight)(g, grad_output, input, grad_weight,
                                                                        weight_write);
}

}  // namespace lamella::cpu
