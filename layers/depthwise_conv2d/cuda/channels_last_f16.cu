#include "layers/depthwise_conv2d/cuda/correlate_channels_last.cuh"
#include "layers/depthwise_conv2d/cuda/weigh_channels_last.cuh"

namespace lamella::cuda::depthwise {

template bool correlate_channels_last<Float16>(const Correlation&);
template bool weigh_channels_last<Float16>(const Weighing&, const Parts&);

}  // namespace lamella::cuda::depthwise
