// All kernels: what is compiled at run time.
#include "boxes.cuh"
#include "pixels.cuh"
#include "planes.cuh"
#include "runs.cuh"

using namespace lamella::depthwise;
