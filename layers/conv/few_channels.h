#pragma once

namespace lamella::detail {

/// The channels of an image that the kernels for a network's first convolution take at most (see
/// layers/conv/cuda/stem/).
inline constexpr int kFewChannels = 4;

}  // namespace lamella::detail
