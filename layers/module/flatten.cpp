#include "lamella/layers/modules/flatten.h"

#include "core/check.h"

namespace lamella {

Tensor Flatten::forward(const Tensor& x) { return x.flatten(first_, last_); }
std::string Flatten::settings() const { return detail::concat("start_dim=", first_, ", end_dim=", last_); }

}  // namespace lamella
