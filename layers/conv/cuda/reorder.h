#pragma once

#include "core/workspace.h"
#include "tensor/view.h"

/// Dense tensors in the other memory format.
namespace lamella::cuda {

/// target = source; one of them dense in row-major order, the other in channels-last order. Equal shapes and
/// types.
void reorder(const detail::ConstTensorView& source, const detail::TensorView& target, bool to_channels_last);

/// A tensor in channels-last order: a workspace to copy from or to.
class ChannelsLastCopy {
 public:
  explicit ChannelsLastCopy(const detail::ConstTensorView& like);
  static ChannelsLastCopy of(const detail::ConstTensorView& source) { return {source, true}; }
  const detail::TensorView& view() const { return view_; }

 private:
  ChannelsLastCopy(const detail::ConstTensorView& source, bool /*filled*/) : ChannelsLastCopy(source) {
    reorder(source, view_, true);
  }

  detail::Workspace memory_;
  detail::TensorView view_;
};

}  // namespace lamella::cuda
