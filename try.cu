#include "layers/depthwise_conv2d/cuda/device/pixels.cuh"
#include "layers/depthwise_conv2d/cuda/device/planes.cuh"
using namespace lamella::depthwise;
template __global__ void lamella::depthwise::forward_pixels<BFloat16, Kernel<3,3,1,1>, Tile<4,4,4>, 32, 3, 3, 16, false, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::forward_pixels<BFloat16, Kernel<3,3,1,1>, Tile<4,7,2>, 32, 3, 3, 16, false, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::forward_pixels<BFloat16, Kernel<3,3,1,1>, Tile<4,7,2>, 32, 3, 3, 16, true, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::forward_pixels<float, Kernel<7,7,1,1>, Tile<4,7,1>, 32, 1, 3, 16, false, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::backward_pixels<BFloat16, Kernel<3,3,1,1>, Tile<4,4,2>, 32, true, true, false, 3, 16, false, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::backward_pixels<BFloat16, Kernel<3,3,1,1>, Tile<4,4,2>, 32, false, true, false, 3, 16, false, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::backward_pixels<BFloat16, Kernel<3,3,2,2>, Tile<2,4,2>, 32, true, false, false, 3, 16, false, 256, 2>(const PixelWork);
template __global__ void lamella::depthwise::forward_planes<float, Kernel<3,3,1,1>, Tile<7,7,1>, 3, false, true, true, false, 256, 2>(const PlaneWork);
template __global__ void lamella::depthwise::forward_planes<BFloat16, Kernel<3,3,1,1>, Tile<7,7,1>, 3, false, true, true, false, 256, 2>(const PlaneWork);
template __global__ void lamella::depthwise::forward_planes<BFloat16, Kernel<3,3,1,1>, Tile<7,7,1>, 3, false, false, true, false, 256, 2>(const PlaneWork);
template __global__ void lamella::depthwise::forward_planes<float, Kernel<7,7,1,1>, Tile<4,7,1>, 7, false, true, true, false, 256, 1>(const PlaneWork);
template __global__ void lamella::depthwise::backward_planes<float, Kernel<3,3,1,1>, Tile<7,7,1>, true, true, false, false, true, true, false, false, 256, 2>(const PlaneWork);
template __global__ void lamella::depthwise::backward_planes<float, Kernel<3,3,1,1>, Tile<7,7,1>, false, true, false, false, true, true, false, false, 256, 2>(const PlaneWork);
template __global__ void lamella::depthwise::backward_planes<float, Kernel<3,3,2,2>, Tile<4,4,1>, true, false, false, false, true, true, false, false, 256, 2>(const PlaneWork);
