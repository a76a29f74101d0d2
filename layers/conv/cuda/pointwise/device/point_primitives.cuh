#pragma once

#include "layers/depthwise_conv2d/cuda/device/primitives.cuh"

/// What the pointwise kernels need of the machine beyond primitives.cuh. Tests have another
/// (tests/emulated/point_primitives.h).
#ifdef LAMELLA_EMULATED
#include "tests/emulated/point_primitives.h"
#else
namespace lamella::pointwise {

/// The block's dynamic shared memory.
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ uint4 shared[];
  return reinterpret_cast<unsigned char*>(shared);
}

/// depthwise::store_matrices() with rows and columns exchanged in what the lanes have.
__device__ __forceinline__ void store_matrices_transposed(unsigned row, unsigned m0, unsigned m1, unsigned m2,
                                                          unsigned m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(m0),
               "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}

/// The number that lane `lane` of the warp gives.
__device__ __forceinline__ float of_lane(float number, int lane) {
  return __shfl_sync(0xffffffffu, number, lane);
}

}  // namespace lamella::pointwise
#endif
