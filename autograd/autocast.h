#pragma once

#include <memory>

#include "lamella/autograd/autocast.h"
#include "lamella/tensor/tensor.h"

/// What operators ask about Autocast.
namespace lamella::detail {

/// A float32 tensor in the type of autocast, by a recorded conversion; any other, and all without autocast,
/// as they are.
Tensor lowered(const Tensor& x);

/// What a kernel reads in place of a float32 parameter beside an input in the type of autocast: its rounded
/// copy, made once a step and without a graph. The parameter itself is still what the operator
/// differentiates.
Tensor lowered_parameter(const Tensor& input, const Tensor& parameter);

/// Rounds those of `parameters`, float32 ones of one device, whose copies lowered_parameter() would have to
/// make anew, in one launch for many. For whoever knows which a step is going to read.
void round_together(const Tensors& parameters);

/// Those of `parameters` that this thread has rounded within its Autocast.
Tensors rounded_among(const Tensors& parameters);

/// A tensor of a half type in float32 under autocast, by a recorded conversion.
Tensor raised(const Tensor& x);

/// While it lives, this thread uses no copy that was rounded before; what it rounds itself is gone at the
/// end. A recording must round within itself: a copy from before would be as stale as its parameter is
/// changed, and is given back when the Autocast around it ends.
class FreshRounding {
 public:
  FreshRounding();
  ~FreshRounding();
  FreshRounding(const FreshRounding&) = delete;
  FreshRounding& operator=(const FreshRounding&) = delete;

 private:
  struct Before;
  std::unique_ptr<Before> before_;
};

}  // namespace lamella::detail
