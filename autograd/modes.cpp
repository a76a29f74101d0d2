#include <cmath>
#include <utility>

#include "autograd/node.h"
#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/copy.h"

namespace lamella {

namespace {
thread_local bool grad_mode = true;
thread_local bool anomaly_mode = false;
}  // namespace

bool grad_enabled() { return grad_mode; }

NoGrad::NoGrad() : before_(std::exchange(grad_mode, false)) {}
NoGrad::~NoGrad() { grad_mode = before_; }
EnableGrad::EnableGrad() : before_(std::exchange(grad_mode, true)) {}
EnableGrad::~EnableGrad() { grad_mode = before_; }
AnomalyMode::AnomalyMode() : before_(std::exchange(anomaly_mode, true)) {}
AnomalyMode::~AnomalyMode() { anomaly_mode = before_; }

namespace detail {

bool anomaly_enabled() { return anomaly_mode; }

void check_no_nan(const std::string& what, const Tensor& tensor) {
  if (!is_floating(tensor.dtype())) return;
  bool found = false;
  LAMELLA_KERNEL(tensor.device(), find_nan(read(tensor), &found));
  LAMELLA_CHECK(Error, !found, what, " ", tensor.describe(), " holds a NaN");
}

}  // namespace detail
}  // namespace lamella
