#include "autograd/record.h"
#include "lamella/layers/activation.h"
#include "layers/activation/kernels.h"
#include "tensor/dispatch.h"

namespace lamella {

using detail::GradientContext;
using detail::GradientTarget;
using detail::Output;
using detail::read;
using detail::Saved;

namespace {

Tensor softmax_of(const char* name, bool logarithm, const Tensor& x, int axis) {
  detail::check_floating(name, "input", x);
  axis = normalize_axis(name, axis, x.dim());
  const Output y = Output::like(x);
  LAMELLA_KERNEL(x.device(), softmax_forward(logarithm, read(x), axis, y.write()));
  return detail::record(name, {x}, y, [logarithm, axis, y = Saved(y)](GradientContext& context) {
    const GradientTarget dx = context.target(0);
    LAMELLA_KERNEL(dx.view.device,
                   softmax_backward(logarithm, read(context.grad()), read(y.get()), axis, dx.view, dx.write));
  });
}

}  // namespace

Tensor softmax(const Tensor& x, int axis) { return softmax_of("softmax", false, x, axis); }
Tensor log_softmax(const Tensor& x, int axis) { return softmax_of("log_softmax", true, x, axis); }

}  // namespace lamella
