#include "layers/depthwise_conv2d/cuda/correlate_channels_last.cuh"
#include "layers/depthwise_conv2d/cuda/weigh_channels_last.cuh"

namespace lamella::cuda::depthwise {

template bool correlate_channels_last<float>(const Correlation&);
template bool weigh_channels_last<float>(const Weighing&, const Parts&);

}  // namespace lamella::cuda::depthwise
