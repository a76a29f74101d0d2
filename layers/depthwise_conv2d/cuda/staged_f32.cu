#include "layers/depthwise_conv2d/cuda/correlate_staged.cuh"
#include "layers/depthwise_conv2d/cuda/weigh_staged.cuh"

namespace lamella::cuda::depthwise {

template bool correlate_staged<float>(const Correlation&);
template bool weigh_staged<float>(const Weighing&, const Parts&);

}  // namespace lamella::cuda::depthwise
