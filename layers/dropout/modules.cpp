#include "core/check.h"
#include "lamella/layers/dropout.h"
#include "lamella/layers/modules/dropout.h"

namespace lamella {

namespace {
void check_probability(const char* name, double p) {
  LAMELLA_CHECK(ShapeError, p >= 0 && p <= 1, name, ": probability ", p, "; it must be in [0, 1]");
}
}  // namespace

Dropout::Dropout(double p) : Module("Dropout"), p_(p) { check_probability("Dropout", p); }
Tensor Dropout::forward(const Tensor& x) { return dropout(x, p_, is_training()); }
std::string Dropout::settings() const { return detail::concat("p=", p_); }

DropPath::DropPath(double p) : Module("DropPath"), p_(p) { check_probability("DropPath", p); }
Tensor DropPath::forward(const Tensor& x) { return drop_path(x, p_, is_training()); }
std::string DropPath::settings() const { return detail::concat("p=", p_); }

}  // namespace lamella
