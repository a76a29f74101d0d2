#include "core/check.h"
#include "lamella/layers/modules/norm.h"
#include "lamella/tensor/create.h"
#include "layers/norm/batch_norm_activate.h"
#include "layers/norm/norm_activate.h"

namespace lamella {

BatchNorm2d::BatchNorm2d(std::int64_t channels, const BatchNorm2dOptions& options)
    : Module("BatchNorm2d"), channels_(channels), options_(options) {
  LAMELLA_CHECK(ShapeError, channels >= 1, "BatchNorm2d: ", channels, " channels; there must be 1 or more");
  LAMELLA_CHECK(ShapeError, options.eps > 0, "BatchNorm2d: eps ", options.eps, "; it must be positive");
  LAMELLA_CHECK(ShapeError, options.momentum >= 0 && options.momentum <= 1, "BatchNorm2d: momentum ",
                options.momentum, "; it must be in [0, 1]");
  if (options.affine) {
    weight_ = add_parameter("weight", ones({channels}));
    bias_ = add_parameter("bias", zeros({channels}));
  }
  if (options.track_running_stats) {
    running_mean_ = add_buffer("running_mean", zeros({channels}));
    running_var_ = add_buffer("running_var", ones({channels}));
    num_batches_tracked_ = add_buffer("num_batches_tracked", zeros({}, {.dtype = int64}));
  }
}

Tensor BatchNorm2d::forward(const Tensor& x) {
  return detail::norm_activate(*this, x, detail::PendingActivation::None);
}

Tensor detail::norm_activate(const BatchNorm2d& norm, const Tensor& x, PendingActivation activation) {
  const BatchNorm2dOptions& options = norm.options();
  LAMELLA_CHECK(ShapeError, x.defined() && x.dim() == 4 && x.size(1) == norm.channels(),
                "BatchNorm2d: input ", x.describe(), "; it must be [N,", norm.channels(), ",H,W]");
  const bool use_batch = norm.is_training() || !options.track_running_stats;
  return batch_norm_activate(
      x, norm.weight(), norm.bias(), {norm.running_mean(), norm.running_var(), norm.num_batches_tracked()},
      {.training = use_batch, .momentum = options.momentum, .eps = options.eps}, activation);
}

std::string BatchNorm2d::settings() const {
  return detail::concat(channels_, ", eps=", options_.eps, ", momentum=", options_.momentum,
                        ", affine=", options_.affine ? "True" : "False",
                        ", track_running_stats=", options_.track_running_stats ? "True" : "False");
}

}  // namespace lamella
