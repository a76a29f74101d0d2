#include "autograd/autocast.h"
#include "autograd/record.h"
#include "core/check.h"
#include "lamella/layers/loss.h"
#include "layers/dense.h"
#include "layers/loss/kernels.h"

namespace lamella {

using namespace detail;

namespace {

void check_pair(const char* op, const Tensor& x, const Tensor& target) {
  check_floating(op, "input", x);
  check_floating(op, "target", target);
  check_same_device(op, x, target);
  check_same_dtype(op, x, target);
  LAMELLA_CHECK(ShapeError, x.shape() == target.shape(), op, ": input ", x.describe(), " and target ",
                target.describe(), " must have the same shape");
}

/// A factor as the kernel wants it: of x's shape, format and compute type.
Tensor factor(const char* op, const char* what, const Tensor& given, const Tensor& x) {
  if (!given.defined()) return given;
  check_floating(op, what, given);
  check_same_device(op, x, given);
  LAMELLA_CHECK(Error, !wants_gradient(given), op, ": ", what, ' ', given.describe(),
                " requires a gradient, which there is none of; detach() it");
  LAMELLA_CHECK(ShapeError, broadcast_shapes(op, given.shape(), x.shape()) == x.shape(), op, ": ", what, ' ',
                given.describe(), " does not broadcast to input ", x.describe());
  const DType compute = x.dtype() == DType::Float64 ? DType::Float64 : DType::Float32;
  return given.to(compute).expand(x.shape()).contiguous(x.memory_format());
}

Tensor pointwise(const char* op, PointwiseLoss kind, const Tensor& given_x, const Tensor& given_target,
                 const Tensor& given_weight, const Tensor& given_pos_weight, Reduction reduction) {
  check_pair(op, given_x, given_target);
  const Tensor x = as_dense(given_x);
  const MemoryFormat format = x.memory_format();
  const Tensor target = given_target.contiguous(format);
  const Tensor weight = factor(op, "weight", given_weight, x);
  const Tensor pos_weight = factor(op, "pos_weight", given_pos_weight, x);
  const auto operands_of = [](const Tensor& a, const Tensor& b, const Tensor& w, const Tensor& p) {
    return PointwiseOperands{read(a), read(b), w.defined() ? read(w) : ConstTensorView{},
                             p.defined() ? read(p) : ConstTensorView{}};
  };
  const bool each = reduction == Reduction::None;
  const Output loss(each ? x.shape() : Shape{}, x.dtype(), x.device(),
                    each ? format : MemoryFormat::Contiguous);
  LAMELLA_KERNEL(x.device(), pointwise_loss_forward(kind, operands_of(x, target, weight, pos_weight),
                                                    reduction, loss.write()));
  return record(
      op, {x, target}, loss,
      [kind, x = Saved(x), target = Saved(target), weight = Saved(weight), pos_weight = Saved(pos_weight),
       reduction, format, each, operands_of](GradientContext& context) {
        const Tensor a = x.get(), b = target.get(), w = weight.get(), p = pos_weight.get();
        const Tensor grad = each ? context.grad().contiguous(format) : context.grad();
        for (const int i : {0, 1}) {
          DenseTarget to(context, i, format);
          if (!to) continue;
          LAMELLA_KERNEL(grad.device(), pointwise_loss_backward(kind, operands_of(a, b, w, p), reduction,
                                                                read(grad), i == 1, to.view(), to.write()));
          to.finish();
        }
      });
}

}  // namespace

Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction) {
  return pointwise("mse_loss", PointwiseLoss::Squared, raised(x), raised(target), {}, {}, reduction);
}

Tensor bce_with_logits(const Tensor& logits, const Tensor& target, const BceOptions& options) {
  return pointwise("bce_with_logits", PointwiseLoss::BinaryCrossEntropy, raised(logits), raised(target),
                   options.weight, options.pos_weight, options.reduction);
}

}  // namespace lamella
