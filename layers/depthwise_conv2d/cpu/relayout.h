#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/cpu/workspace.h"
#include "tensor/view.h"

namespace lamella::cpu {

/// Elements of an input and an output plane together up to which a copy pays, as measured.
inline constexpr std::int64_t kSmallPlanes = 200;

/// Whether a convolution between `input` and `output` is better done on channels-last copies of both. On
/// planes of a few vectors the planar loops spend their time on getting started, plane by plane; and they
/// have none of their own for strides above 2 along the row.
bool prefer_relayout(const Conv2dGeometry& geometry, const detail::ConstTensorView& input,
                     const detail::ConstTensorView& output, std::int64_t small_plane = kSmallPlanes);

/// A channels-last tensor of a tensor's shape and type, for the length of a kernel.
class ChannelsLast {
 public:
  explicit ChannelsLast(const detail::ConstTensorView& original);
  ChannelsLast& load();                                  ///< takes over the original's elements
  void store(const detail::TensorView& original) const;  ///< copies them back
  const detail::TensorView& view() const { return view_; }

 private:
  const detail::ConstTensorView original_;
  const Workspace memory_;
  detail::TensorView view_;
};

}  // namespace lamella::cpu
