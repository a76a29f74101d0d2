#include "layers/depthwise_conv2d/cpu/relayout.h"

#include "layers/depthwise_conv2d/cpu/source_rows.h"
#include "tensor/kernels/copy.h"

namespace lamella::cpu {
namespace {

constexpr std::int64_t kFewestChannels = 8;  // a vector's worth

}  // namespace

bool prefer_relayout(const Conv2dGeometry& g, const detail::ConstTensorView& input,
                     const detail::ConstTensorView& output, std::int64_t small_plane) {
  if (g.batch == 0 || g.in_channels < kFewestChannels || use_channels_last(input, output, g.out_channels))
    return false;
  return g.in.h * g.in.w + g.out.h * g.out.w <= small_plane || g.stride.w > 2;
}

ChannelsLast::ChannelsLast(const detail::ConstTensorView& original)
    : original_(original),
      memory_(original.numel() * static_cast<std::int64_t>(size_of(original.dtype))),
      view_{memory_.as<void>(), original.shape, dense_strides(original.shape, MemoryFormat::ChannelsLast),
            original.dtype, original.device} {}

ChannelsLast& ChannelsLast::load() {
  copy(original_, view_, detail::GradientWrite::Overwrite);
  return *this;
}

void ChannelsLast::store(const detail::TensorView& original) const {
  copy(view_, original, detail::GradientWrite::Overwrite);
}

}  // namespace lamella::cpu
