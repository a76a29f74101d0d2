#pragma once

#include "core/check.h"
#include "lamella/layers/module.h"

namespace lamella::models::detail {

using lamella::detail::concat;

/// Throws ShapeError naming `model` where an option that all models have is out of range.
template <class Options>
void check_options(const char* model, const Options& options) {
  LAMELLA_CHECK(ShapeError, options.classes >= 1, model, ": ", options.classes,
                " classes; there must be 1 or more");
  LAMELLA_CHECK(ShapeError, options.width > 0 && options.width <= 1000, model, ": width ", options.width,
                "; it must be above 0 (1 is the paper's network) and at most 1000");
  LAMELLA_CHECK(ShapeError, options.in_channels >= 1, model, ": ", options.in_channels,
                " input channels; there must be 1 or more");
  LAMELLA_CHECK(ShapeError, options.dropout >= 0 && options.dropout <= 1, model, ": dropout ",
                options.dropout, "; it must be in [0, 1]");
}
void check_drop_path(const char* model, double drop_path);

/// Throws unless x is [N,channels,H,W].
void check_images(const char* model, const Tensor& x, std::int64_t channels);

/// Torchvision's start for MobileNets: convolutions Kaiming-normal by fan_out, Linear normal with deviation
/// 0.01, every bias of the two 0.
void initialize_as_torchvision(Module& model);

/// Means over height and width, as [N,C].
Tensor pool_to_vector(const Tensor& x);

}  // namespace lamella::models::detail
