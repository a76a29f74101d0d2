#include "lamella/optim/clip.h"

#include "core/profiling.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "optim/kernels.h"
#include "optim/match.h"
#include "optim/options.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"

namespace lamella::optim {

namespace {

Tensors gradients_of_all(const char* op, const Tensors& params) {
  Tensors gradients;
  for (const Tensor& param : params) {
    detail::check_defined(op, "a parameter", param);
    const Tensor gradient = param.grad();
    if (!gradient.defined()) continue;
    LAMELLA_CHECK(DTypeError, is_supported(gradient.dtype()), op, ": gradient ", gradient.describe(),
                  " must be float32 or float64");
    if (!gradients.empty()) detail::check_same_device(op, gradients.front(), gradient);
    gradients.push_back(gradient);
  }
  return gradients;
}

std::vector<detail::TensorView> write_all(const char* op, const Tensors& gradients) {
  std::vector<detail::TensorView> views;
  for (const Tensor& gradient : gradients) views.push_back(detail::write(gradient, op));
  return views;
}

}  // namespace

Tensor clip_grad_norm_(const Tensors& params, double max_norm) {
  constexpr const char* kOp = "clip_grad_norm_";
  const NoGrad no_grad;
  const detail::profiling::PassScope pass(detail::profiling::Pass::Update, kOp);
  check_option(kOp, "max_norm", max_norm);
  const Tensors gradients = gradients_of_all(kOp, params);
  if (gradients.empty()) return zeros({});
  const Device device = gradients.front().device();
  DType dtype = DType::Float32;
  std::vector<detail::ConstTensorView> views;
  for (const Tensor& gradient : gradients) {
    views.push_back(detail::read(gradient));
    if (gradient.dtype() == DType::Float64) dtype = DType::Float64;
  }
  const Tensor norm = empty({}, {.dtype = DType::Float64, .device = device});
  LAMELLA_KERNEL(device, gradient_norm(views, detail::write(norm, kOp)));
  const double* const at = detail::read(norm).as<double>();
  LAMELLA_KERNEL(device, scale_gradients(write_all(kOp, gradients), at, max_norm));
  return norm.to(dtype);
}

void clip_grad_value_(const Tensors& params, double clip_value) {
  constexpr const char* kOp = "clip_grad_value_";
  const detail::profiling::PassScope pass(detail::profiling::Pass::Update, kOp);
  check_option(kOp, "clip_value", clip_value);
  const Tensors gradients = gradients_of_all(kOp, params);
  if (gradients.empty()) return;
  LAMELLA_KERNEL(gradients.front().device(), limit_gradients(write_all(kOp, gradients), clip_value));
}

}  // namespace lamella::optim
