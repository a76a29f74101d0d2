#include "layers/depthwise_conv2d/cuda/correlate_planar.cuh"
#include "layers/depthwise_conv2d/cuda/weigh_planar.cuh"

namespace lamella::cuda::depthwise {

template bool correlate_planar<BFloat16>(const Correlation&);
template bool weigh_planar<BFloat16>(const Weighing&, const Parts&);

}  // namespace lamella::cuda::depthwise
