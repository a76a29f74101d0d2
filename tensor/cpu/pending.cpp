#include "tensor/kernels/pending.h"

#include <algorithm>

#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"
#include "tensor/fused_activations.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::PendingActivation;
using detail::PendingView;
using detail::TensorView;

namespace {

template <PendingActivation A, class C>
C activate(C z) {
  if constexpr (A == PendingActivation::Relu) return detail::relu_value(z);
  if constexpr (A == PendingActivation::Relu6) return detail::relu6_value(z);
  if constexpr (A == PendingActivation::Hardswish) return detail::hardswish_value(z);
  if constexpr (A == PendingActivation::Silu) return detail::silu_value(z);
  return z;
}

template <PendingActivation A, class T>
void apply(const PendingView& pending, const TensorView& output) {
  using C = ComputeType<T>;
  const auto* scale = static_cast<const C*>(pending.scale);
  const auto* shift = static_cast<const C*>(pending.shift);
  const auto* stored = pending.stored.as<T>();
  auto* out = output.as<T>();
  const bool per_channel = output.shape.size() >= 2;
  const std::int64_t channels = per_channel ? output.shape[1] : 1;
  const std::int64_t channel_step = per_channel ? output.strides[1] : 0;
  const std::int64_t total = output.numel();
  if (total == 0) return;
  if (channel_step == 1 && channels > 1) {  // NHWC or [N, C]: a pixel at a time
    detail::parallel_for(
        total / channels, std::max<std::int64_t>(1, kElementGrain / channels),
        [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t pixel = begin; pixel < end; ++pixel) {
            const T* from = stored + pixel * channels;
            T* to = out + pixel * channels;
            if (scale && shift) {
              for (std::int64_t c = 0; c < channels; ++c)
                to[c] = static_cast<T>(activate<A>(static_cast<C>(from[c]) * scale[c] + shift[c]));
            } else {
              for (std::int64_t c = 0; c < channels; ++c)
                to[c] = static_cast<T>(activate<A>(static_cast<C>(from[c]) * (scale ? scale[c] : C(1)) +
                                                   (shift ? shift[c] : C(0))));
            }
          }
        });
    return;
  }
  // Row-major: a plane per (image, channel).
  const std::int64_t planes = per_channel ? output.shape[0] * channels : 1;
  const std::int64_t plane = total / planes;
  detail::parallel_for(planes, std::max<std::int64_t>(1, kElementGrain / plane),
                       [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t p = begin; p < end; ++p) {
                           const std::int64_t c = p % channels;
                           const C s = scale ? scale[c] : C(1), b = shift ? shift[c] : C(0);
                           const T* from = stored + p * plane;
                           T* to = out + p * plane;
                           for (std::int64_t i = 0; i < plane; ++i)
                             to[i] = static_cast<T>(activate<A>(static_cast<C>(from[i]) * s + b));
                         }
                       });
}

}  // namespace

void apply_pending(const PendingView& pending, const TensorView& output) {
  detail::dispatch_floating(output.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (pending.activation) {
      case PendingActivation::None:
        return apply<PendingActivation::None, T>(pending, output);
      case PendingActivation::Relu:
        return apply<PendingActivation::Relu, T>(pending, output);
      case PendingActivation::Relu6:
        return apply<PendingActivation::Relu6, T>(pending, output);
      case PendingActivation::Hardswish:
        return apply<PendingActivation::Hardswish, T>(pending, output);
      case PendingActivation::Silu:
        return apply<PendingActivation::Silu, T>(pending, output);
    }
  });
}

}  // namespace lamella::cpu
