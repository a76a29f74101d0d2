#include "models/common.h"

#include "lamella/layers/init.h"
#include "lamella/layers/modules/conv.h"
#include "lamella/layers/modules/linear.h"
#include "lamella/layers/pool.h"

namespace lamella::models::detail {

void check_drop_path(const char* model, double drop_path) {
  LAMELLA_CHECK(ShapeError, drop_path >= 0 && drop_path <= 1, model, ": drop_path ", drop_path,
                "; it must be in [0, 1]");
}

void check_images(const char* model, const Tensor& x, std::int64_t channels) {
  LAMELLA_CHECK(ShapeError, x.defined() && x.dim() == 4 && x.size(1) == channels, model, ": input ",
                x.describe(), "; it must be [N,", channels, ",H,W]");
}

void initialize_as_torchvision(Module& model) {
  model.apply([](const std::string&, Module& module) {
    if (const auto* conv = dynamic_cast<const Conv2d*>(&module)) {
      init::kaiming_normal_(conv->weight(), {.mode = init::FanMode::FanOut});
      if (conv->bias().defined()) init::zeros_(conv->bias());
    } else if (const auto* linear = dynamic_cast<const Linear*>(&module)) {
      init::normal_(linear->weight(), 0, 0.01);
      init::zeros_(linear->bias());
    }
  });
}

Tensor pool_to_vector(const Tensor& x) {
  // Not mean(), which would first write out what the last norm and activation owe.
  return adaptive_avg_pool2d(x, Size2(1)).reshape({x.size(0), x.size(1)});
}

}  // namespace lamella::models::detail
