#include "autograd/autocast.h"

#include <map>
#include <utility>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "tensor/door.h"

namespace lamella {

namespace {

/// A parameter's rounded copy, and the values it was made of.
struct Rounded {
  Tensor parameter;  // held, so that its address stays its own
  const void* storage = nullptr;
  std::uint64_t version = 0;
  Tensor copy;
};

struct State {
  std::optional<DType> dtype;
  int depth = 0;
  std::map<const void*, Rounded> rounded;
};
thread_local State state;

}  // namespace

Autocast::Autocast(DType dtype, bool enabled) {
  LAMELLA_CHECK(DTypeError, dtype == DType::BFloat16 || dtype == DType::Float16, "Autocast: ", name(dtype),
                "; it must be bfloat16 or float16");
  before_ = std::exchange(state.dtype, enabled ? std::optional(dtype) : std::nullopt);
  ++state.depth;
}

Autocast::~Autocast() {
  state.dtype = before_;
  if (--state.depth == 0) state.rounded.clear();
}

std::optional<DType> autocast_dtype() { return state.dtype; }

namespace detail {

Tensor lowered(const Tensor& x) {
  return state.dtype && x.defined() && x.dtype() == DType::Float32 ? x.to(*state.dtype) : x;
}

Tensor lowered_parameter(const Tensor& input, const Tensor& parameter) {
  if (!state.dtype || !parameter.defined() || parameter.dtype() != DType::Float32 ||
      input.dtype() != *state.dtype)
    return parameter;
  const TensorImpl& impl = TensorDoor::impl(parameter);
  const std::uint64_t version = impl.storage->version.load(std::memory_order_relaxed);
  Rounded& known = state.rounded[&impl];
  if (!known.copy.defined() || known.storage != impl.storage.get() || known.version != version ||
      known.copy.dtype() != *state.dtype) {
    const NoGrad no_grad;
    known = {parameter, impl.storage.get(), version, parameter.detach().to(*state.dtype)};
  }
  return known.copy;
}

Tensor raised(const Tensor& x) {
  return state.dtype && x.defined() && is_floating(x.dtype()) && size_of(x.dtype()) == 2
             ? x.to(DType::Float32)
             : x;
}

struct FreshRounding::Before {
  std::map<const void*, Rounded> rounded;
};
FreshRounding::FreshRounding() : before_(std::make_unique<Before>()) {
  std::swap(before_->rounded, state.rounded);
}
FreshRounding::~FreshRounding() { std::swap(before_->rounded, state.rounded); }

}  // namespace detail
}  // namespace lamella
