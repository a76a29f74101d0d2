#include "lamella/layers/activation.h"

#include "autograd/record.h"
#include "core/check.h"
#include "core/profiling_bytes.h"
#include "layers/activation/kernels.h"
#include "tensor/dispatch.h"

namespace lamella {

using detail::ActivationKind;
using detail::ActivationOp;
using detail::GradientContext;
using detail::GradientTarget;
using detail::Output;
using detail::PendingActivation;
using detail::read;
using detail::Saved;

namespace {

bool reads_output(const ActivationOp& op) {
  bool result = false;
  visit_activation(op, [&](auto f) { result = decltype(f)::kFromOutput; });
  return result;
}

/// Whether `x` can owe one activation more, which its consumers then apply as they load it.
bool can_owe(const Tensor& x, PendingActivation activation) {
  const detail::profiling::BytesApart only_a_look;
  return activation != PendingActivation::None && detail::fusion_enabled() && detail::is_pending(x) &&
         detail::read_pending(x).activation == PendingActivation::None;
}

Tensor activate(const char* name, const ActivationOp& op, const Tensor& x,
                PendingActivation pending = PendingActivation::None) {
  detail::check_floating(name, "input", x);
  const bool owed = can_owe(x, pending);
  const Output y = owed ? Output::of(detail::with_activation(x, pending)) : Output::like(x);
  if (!owed) LAMELLA_KERNEL(x.device(), activation_forward(op, read(x), y.write()));
  const Tensor& saved = reads_output(op) ? y.unrecorded() : x;
  return detail::record(name, {x}, y, [op, saved = Saved(saved)](GradientContext& context) {
    const GradientTarget dx = context.target(0);
    LAMELLA_KERNEL(dx.view.device, activation_backward(op, read(context.grad()),
                                                       detail::read_pending(saved.get()), dx.view, dx.write));
  });
}

}  // namespace

Tensor relu(const Tensor& x) { return activate("relu", {ActivationKind::Relu}, x, PendingActivation::Relu); }
Tensor relu6(const Tensor& x) {
  return activate("relu6", {ActivationKind::Relu6}, x, PendingActivation::Relu6);
}
Tensor leaky_relu(const Tensor& x, double slope) {
  return activate("leaky_relu", {ActivationKind::LeakyRelu, slope}, x);
}
Tensor hardswish(const Tensor& x) {
  return activate("hardswish", {ActivationKind::Hardswish}, x, PendingActivation::Hardswish);
}
Tensor hardsigmoid(const Tensor& x) { return activate("hardsigmoid", {ActivationKind::Hardsigmoid}, x); }
Tensor sigmoid(const Tensor& x) { return activate("sigmoid", {ActivationKind::Sigmoid}, x); }
Tensor silu(const Tensor& x) { return activate("silu", {ActivationKind::Silu}, x, PendingActivation::Silu); }
Tensor gelu(const Tensor& x, GeluApproximation approximation) {
  const bool exact = approximation == GeluApproximation::None;
  return activate("gelu", {exact ? ActivationKind::Gelu : ActivationKind::GeluTanh}, x);
}
Tensor tanh(const Tensor& x) { return activate("tanh", {ActivationKind::Tanh}, x); }

}  // namespace lamella
