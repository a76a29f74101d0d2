#include "layers/conv/cpu/pointwise.h"

#include "layers/conv/cpu/operands.h"
#include "tensor/cpu/workspace.h"
#include "tensor/kernels/copy.h"
#include "tensor/kernels/gemm.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GemmOperand;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// [O/groups × C/groups] matrices of a 1x1 weight.
GemmOperand pointwise_weight(const ConstTensorView& w, std::int64_t groups) {
  return {w.data, w.dtype, w.strides[0], w.strides[1], {0, 0, w.strides[0] * (w.shape[0] / groups)}};
}

/// Row-major images with so few pixels make poor matrices; the same images in channels-last order make one
/// good one.
bool reorders(const Conv2dGeometry& g, const ConstTensorView& input, const ConstTensorView& output) {
  constexpr std::int64_t kFewPixels = 12;
  return g.out.h * g.out.w <= kFewPixels && g.batch > 1 && !is_channels_last(input, output);
}

/// A tensor in channels-last order: a workspace to copy from or to.
class Reordered {
 public:
  explicit Reordered(const ConstTensorView& like)
      : memory_(like.numel() * static_cast<std::int64_t>(size_of(like.dtype))),
        view_{memory_.as<void>(), like.shape, dense_strides(like.shape, MemoryFormat::ChannelsLast),
              like.dtype, like.device} {}
  static Reordered copy_of(const ConstTensorView& source) { return Reordered(source, Fill{}); }
  const TensorView& view() const { return view_; }

 private:
  struct Fill {};
  Reordered(const ConstTensorView& source, Fill) : Reordered(source) {
    copy(source, view_, GradientWrite::Overwrite);
  }

  Workspace memory_;
  TensorView view_;
};

Gemm pointwise(const Conv2dGeometry& g) {
  Gemm product;
  product.batch = {g.batch, g.out.h, g.groups};
  return product;
}

}  // namespace

bool is_pointwise(const Conv2dGeometry& g) {
  return g.kernel == Size2(1) && g.padding == Size2(0) && g.out.h == (g.in.h - 1) / g.stride.h + 1 &&
         g.out.w == (g.in.w - 1) / g.stride.w + 1;
}

void pointwise_forward(const Conv2dGeometry& g, const ConstTensorView& input, const ConstTensorView& weight,
                       const ConstTensorView& bias, const TensorView& output) {
  if (reorders(g, input, output)) {
    const Reordered x = Reordered::copy_of(input), y(output);
    pointwise_forward(g, x.view(), weight, bias, y.view());
    copy(y.view(), output, GradientWrite::Overwrite);
    return;
  }
  Gemm product = pointwise(g);
  product.m = g.out_channels / g.groups;
  product.n = g.out.w;
  product.k = g.in_channels / g.groups;
  product.a = pointwise_weight(weight, g.groups);
  product.b = image_matrix(input, g.stride, g.groups);
  if (bias.data != nullptr)
    product.bias = {bias.data, bias.dtype, bias.strides[0], 0, {0, 0, bias.strides[0] * product.m}};
  set_target(product, image_matrix(output, 1, g.groups));
  gemm(product);
}

void pointwise_backward_input(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                              const ConstTensorView& weight, const TensorView& grad_input,
                              GradientWrite write) {
  if (reorders(g, grad_input, grad_output)) {
    const Reordered dy = Reordered::copy_of(grad_output), dx(grad_input);
    pointwise_backward_input(g, dy.view(), weight, dx.view(), GradientWrite::Overwrite);
    copy(dx.view(), grad_input, write);
    return;
  }
  // Pixels between the strides get nothing.
  if (g.stride != Size2(1) && write == GradientWrite::Overwrite) fill(grad_input, 0);
  Gemm product = pointwise(g);
  product.m = g.in_channels / g.groups;
  product.n = g.out.w;
  product.k = g.out_channels / g.groups;
  product.a = transposed(pointwise_weight(weight, g.groups));
  product.b = image_matrix(grad_output, 1, g.groups);
  set_target(product, image_matrix(grad_input, g.stride, g.groups));
  product.write = write;
  gemm(product);
}

void pointwise_backward_weight(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                               const ConstTensorView& input, const TensorView& grad_weight,
                               GradientWrite write) {
  if (reorders(g, input, grad_output)) {
    const Reordered dy = Reordered::copy_of(grad_output), x = Reordered::copy_of(input);
    pointwise_backward_weight(g, dy.view(), x.view(), grad_weight, write);
    return;
  }
  Gemm product = pointwise(g);
  product.m = g.out_channels / g.groups;
  product.n = g.in_channels / g.groups;
  product.k = g.out.w;
  product.a = image_matrix(grad_output, 1, g.groups);
  product.b = transposed(image_matrix(input, g.stride, g.groups));
  set_target(product, pointwise_weight(grad_weight, g.groups));
  product.write = write;
  gemm(product);
}

}  // namespace lamella::cpu
