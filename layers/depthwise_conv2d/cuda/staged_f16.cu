#include "layers/depthwise_conv2d/cuda/correlate_staged.cuh"
#include "layers/depthwise_conv2d/cuda/weigh_staged.cuh"

namespace lamella::cuda::depthwise {

template bool correlate_staged<Float16>(const Correlation&);
template bool weigh_staged<Float16>(const Weighing&, const Parts&);

}  // namespace lamella::cuda::depthwise
