#include <cmath>

#include "core/check.h"
#include "lamella/layers/init.h"
#include "lamella/layers/linear.h"
#include "lamella/layers/modules/linear.h"
#include "lamella/tensor/create.h"

namespace lamella {

Linear::Linear(std::int64_t in, std::int64_t out, bool bias) : Module("Linear") {
  LAMELLA_CHECK(ShapeError, in >= 1 && out >= 1, "Linear: ", in, " inputs and ", out,
                " outputs; both must be 1 or more");
  weight_ = add_parameter("weight", init::kaiming_uniform_(empty({out, in}), {.a = std::sqrt(5.0)}));
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  if (bias) bias_ = add_parameter("bias", init::uniform_(empty({out}), -bound, bound));
}

Tensor Linear::forward(const Tensor& x) { return linear(x, weight_, bias_); }

std::string Linear::settings() const {
  return detail::concat("in_features=", weight_->size(1), ", out_features=", weight_->size(0),
                        ", bias=", bias_.defined() ? "True" : "False");
}

}  // namespace lamella
