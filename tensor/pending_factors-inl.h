// For every backend, like elementwise-inl.h: what map_each() needs to fold a pending tensor into its load.
#include "tensor/broadcast.h"
#include "tensor/door.h"

namespace lamella::LAMELLA_BACKEND {

/// stored · scale + shift, all over the stored shape.
struct PendingFactors {
  MapOperand scale, shift;
};

inline PendingFactors factors_of(const detail::PendingView& pending) {
  static constexpr double kOne = 1, kZero = 0;
  const auto over_shape = [&](const void* data, const double& otherwise) -> MapOperand {
    const detail::ConstTensorView& stored = pending.stored;
    if (data == nullptr) return repeat(otherwise, stored);
    const DType type = stored.dtype == DType::Float64 ? DType::Float64 : DType::Float32;
    return detail::along_channels(data, type, stored.shape, stored.device);
  };
  return {over_shape(pending.scale, kOne), over_shape(pending.shift, kZero)};
}

}  // namespace lamella::LAMELLA_BACKEND
