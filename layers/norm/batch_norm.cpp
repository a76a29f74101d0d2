#include "autograd/record.h"
#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/layers/norm.h"
#include "layers/dense.h"
#include "layers/norm/batch_norm_activate.h"
#include "layers/norm/kernels.h"
#include "layers/norm/operands.h"
#include "tensor/kernels/pending.h"
#include "tensor/moments.h"

namespace lamella {

using namespace detail;

namespace {

/// No data: it stays as it is.
TensorView kept_to_write(const Tensor& kept, bool training) {
  if (!kept.defined() || !training || recomputing()) return {};
  check_in_place("batch_norm", kept);
  return write(kept, "batch_norm");
}

/// y = activation(x · scale + shift), left to whoever reads it where fusion is on.
Output affine(const Tensor& x, const Tensor& scale, const Tensor& shift, PendingActivation activation,
              const Tensor& center) {
  const Tensor settled = alias(x, x.shape(), x.strides(), 0);
  // make_pending() wants the tensor to begin where its storage does.
  if (fusion_enabled() && TensorDoor::impl(settled).offset == 0)
    return Output::of(make_pending(settled, scale, shift, activation, center));
  const Output y = Output::like(x);
  const PendingView owed{read(settled), read(scale).data, read(shift).data, activation, nullptr};
  LAMELLA_KERNEL(x.device(), apply_pending(owed, y.write()));
  return y;
}

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                  const Tensor& running_var, const BatchNormOptions& options) {
  return batch_norm_activate(x, weight, bias, {running_mean, running_var, {}}, options,
                             PendingActivation::None);
}

Tensor detail::batch_norm_activate(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                   const RunningStatistics& running, const BatchNormOptions& options,
                                   PendingActivation activation) {
  check_floating("batch_norm", "input", input);
  LAMELLA_CHECK(ShapeError, input.dim() >= 2, "batch_norm: input ", input.describe(),
                "; it must be [N,C] or [N,C,...]");
  const Shape vector{input.size(1)};
  check_norm_parameter("batch_norm", "weight", weight, input, vector);
  check_norm_parameter("batch_norm", "bias", bias, input, vector);
  check_norm_parameter("batch_norm", "running_mean", running.mean, input, vector);
  check_norm_parameter("batch_norm", "running_var", running.var, input, vector);
  if (running.tracked.defined()) check_same_device("batch_norm", input, running.tracked);
  LAMELLA_CHECK(Error, options.training || (running.mean.defined() && running.var.defined()),
                "batch_norm: outside training running_mean and running_var must be defined (input ",
                input.describe(), ')');
  const Tensor x = as_dense(input);
  const Device device = x.device();
  const std::int64_t channels = x.size(1);
  const ChannelLayout layout = channel_layout(x.shape(), x.memory_format(), false);
  const bool training = options.training;
  LAMELLA_CHECK(ShapeError, !training || layout.count() != 1,
                "batch_norm: expected more than 1 value per channel in training, got input ", x.describe());

  const Tensor statistics = allocate({2, channels}, DType::Float64, device);
  const DType compute = x.dtype() == DType::Float64 ? DType::Float64 : DType::Float32;
  const Tensor scale = allocate({channels}, compute, device), shift = allocate({channels}, compute, device);
  Tensor center;
  if (fusion_enabled() && wants_gradient(x)) center = allocate({channels}, compute, device);
  const BatchNormForward norm{.eps = options.eps,
                              .momentum = options.momentum,
                              .statistics = write(statistics, "batch_norm"),
                              .running_mean = kept_to_write(running.mean, training),
                              .running_var = kept_to_write(running.var, training),
                              .tracked = kept_to_write(running.tracked, training),
                              .weight = view_or_none(weight),
                              .bias = view_or_none(bias),
                              .scale = write(scale, "batch_norm"),
                              .shift = write(shift, "batch_norm"),
                              .center = center.defined() ? write(center, "batch_norm") : TensorView{}};
  if (!training)
    LAMELLA_KERNEL(device, batch_norm_running_statistics(read(running.mean), read(running.var), norm));
  else if (const Moments left = moments_of(x); left.parts.defined())
    LAMELLA_KERNEL(device, batch_norm_statistics_of(read(left.parts), left.of_part, layout.count(), norm));
  else
    LAMELLA_KERNEL(device, batch_norm_statistics(read(x), layout, norm));
  return record("batch_norm", {x, weight, bias}, affine(x, scale, shift, activation, center),
                [x = Saved(x), weight = Saved(weight), statistics, scale, shift, layout, training,
                 activation](GradientContext& context) {
                  const Tensor input = x.get(), w = weight.get();
                  const MemoryFormat format = input.memory_format();
                  const Tensor grad = context.grad().contiguous(format);
                  const Tensor known = context.sums();
                  DenseTarget dx(context, 0, format);
                  // Whoever left sums has gone back through the activation, and nothing was added since.
                  const PendingActivation ahead = known.defined() ? PendingActivation::None : activation;
                  detail::ActivationSlope slope{ahead, read(scale).data, read(shift).data, dx.view()};
                  Tensor passed;  // where dx cannot hold the gradient in between
                  if (ahead != PendingActivation::None && (!dx || dx.write() == GradientWrite::Accumulate)) {
                    passed = allocate(input.shape(), input.dtype(), input.device(), format);
                    slope.passed = write(passed, "batch_norm");
                  }
                  const GradientTarget dw = context.target(1), db = context.target(2);
                  const NormParameterGradients parameters{dw.view, db.view, dw.write, db.write};
                  LAMELLA_KERNEL(grad.device(),
                                 batch_norm_backward(read(grad), read(input), layout, read(statistics),
                                                     view_or_none(w), training, view_or_none(known),
                                                     parameters, dx.view(), dx.write(), slope));
                  dx.finish();
                });
}

}  // namespace lamella
