#include "tensor/moments.h"

#include <utility>

#include "tensor/door.h"

namespace lamella::detail {
namespace {

thread_local bool wanted_now = false;

}  // namespace

MomentsRequest::MomentsRequest(bool wanted)
    : before_(std::exchange(wanted_now, wanted && fusion_enabled())) {}
MomentsRequest::~MomentsRequest() { wanted_now = before_; }

bool take_moments_request() { return std::exchange(wanted_now, false); }

void leave_moments(const Tensor& tensor, const LeftParts& moments) {
  TensorImpl& impl = TensorDoor::impl(tensor);
  impl.moments = moments.tensor();
  impl.moments_of_part = moments.of_part();
  impl.moments_version = impl.storage->version.load(std::memory_order_relaxed);
}

Moments moments_of(const Tensor& tensor) {
  const TensorImpl& impl = TensorDoor::impl(tensor);
  const bool as_left = impl.moments.defined() && !impl.pending &&
                       impl.moments_version == impl.storage->version.load(std::memory_order_relaxed);
  return as_left ? Moments{impl.moments, impl.moments_of_part} : Moments{};
}

}  // namespace lamella::detail
