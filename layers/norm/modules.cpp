#include "core/check.h"
#include "lamella/layers/modules/norm.h"
#include "lamella/layers/norm.h"
#include "lamella/tensor/create.h"

namespace lamella {

namespace {

void check_norm(const char* name, std::int64_t channels, double eps) {
  LAMELLA_CHECK(ShapeError, channels >= 1, name, ": ", channels, " channels; there must be 1 or more");
  LAMELLA_CHECK(ShapeError, eps > 0, name, ": eps ", eps, "; it must be positive");
}

}  // namespace

LayerNorm2d::LayerNorm2d(std::int64_t channels, double eps) : Module("LayerNorm2d"), eps_(eps) {
  check_norm("LayerNorm2d", channels, eps);
  weight_ = add_parameter("weight", ones({channels}));
  bias_ = add_parameter("bias", zeros({channels}));
}

Tensor LayerNorm2d::forward(const Tensor& x) {
  LAMELLA_CHECK(ShapeError, x.defined() && x.dim() == 4 && x.size(1) == weight_->size(0),
                "LayerNorm2d: input ", x.describe(), "; it must be [N,", weight_->size(0), ",H,W]");
  // Row-major over the permuted axes is channels_last over the others.
  const Tensor y = layer_norm(x.permute({0, 2, 3, 1}), {x.size(1)}, weight_, bias_, eps_);
  return y.permute({0, 3, 1, 2}).contiguous(x.memory_format());
}

std::string LayerNorm2d::settings() const { return detail::concat('(', weight_->size(0), ",), eps=", eps_); }

GroupNorm::GroupNorm(std::int64_t groups, std::int64_t channels, double eps)
    : Module("GroupNorm"), groups_(groups), eps_(eps) {
  check_norm("GroupNorm", channels, eps);
  LAMELLA_CHECK(ShapeError, groups >= 1 && channels % groups == 0, "GroupNorm: ", groups,
                " groups do not divide ", channels, " channels");
  weight_ = add_parameter("weight", ones({channels}));
  bias_ = add_parameter("bias", zeros({channels}));
}

Tensor GroupNorm::forward(const Tensor& x) { return group_norm(x, groups_, weight_, bias_, eps_); }

std::string GroupNorm::settings() const {
  return detail::concat(groups_, ", ", weight_->size(0), ", eps=", eps_);
}

}  // namespace lamella
