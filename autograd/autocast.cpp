#include "autograd/autocast.h"

#include <map>
#include <utility>
#include <vector>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"
#include "tensor/kernels/copy.h"

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

namespace {

/// What is known of a parameter's copy, and whether that is up to date.
std::pair<Rounded&, bool> copy_of(const Tensor& parameter) {
  const detail::TensorImpl& impl = detail::TensorDoor::impl(parameter);
  Rounded& known = state.rounded[&impl];
  const std::uint64_t version = impl.storage->version.load(std::memory_order_relaxed);
  const bool fresh = known.copy.defined() && known.storage == impl.storage.get() &&
                     known.version == version && known.copy.dtype() == *state.dtype;
  if (!fresh) known = {parameter, impl.storage.get(), version, {}};
  return {known, fresh};
}

}  // namespace

namespace detail {

Tensor lowered(const Tensor& x) {
  return state.dtype && x.defined() && x.dtype() == DType::Float32 ? x.to(*state.dtype) : x;
}

Tensor lowered_parameter(const Tensor& input, const Tensor& parameter) {
  if (!state.dtype || !parameter.defined() || parameter.dtype() != DType::Float32 ||
      input.dtype() != *state.dtype)
    return parameter;
  const auto [known, fresh] = copy_of(parameter);
  if (!fresh) {
    const NoGrad no_grad;
    known.copy = parameter.detach().to(*state.dtype);
  }
  return known.copy;
}

void round_together(const Tensors& parameters) {
  if (!state.dtype) return;
  std::vector<cpu::Rounding> all;
  Device device;
  for (const Tensor& parameter : parameters) {
    if (!parameter.defined() || parameter.dtype() != DType::Float32) continue;
    if (all.empty())
      device = parameter.device();
    else if (parameter.device() != device)
      continue;  // rounded when it is used
    const auto [known, fresh] = copy_of(parameter);
    if (fresh) continue;
    known.copy = allocate(parameter.shape(), *state.dtype, device, parameter.memory_format());
    all.push_back({read(parameter), write(known.copy, "")});
  }
  if (all.empty()) return;
  LAMELLA_KERNEL(device, round_all(all));
  if (profiling::on()) profiling::end_operator("to");
}

Tensors rounded_among(const Tensors& parameters) {
  Tensors found;
  for (const Tensor& parameter : parameters)
    if (parameter.defined() && state.rounded.contains(&TensorDoor::impl(parameter)))
      found.push_back(parameter);
  return found;
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
