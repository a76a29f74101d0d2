#include "layers/depthwise_conv2d/cuda/device/pixels.cuh"
#include "layers/depthwise_conv2d/cuda/device/planes.cuh"
using namespace lamella::depthwise;
template __global__ void lamella::depthwise::forward_planes<BFloat16, Kernel<3,3,1,1>, Tile<7,7,1>, 3, false, true, true, false, 128, 4>(const PlaneWork);
template __global__ void lamella::depthwise::forward_pixels<BFloat16, Kernel<3,3,1,1>, Tile<4,7,2>, 32, 3, 3, 16, false, 128, 4>(const PixelWork);
