// All kernels: what is compiled at run time.
#include "finish.cuh"
#include "multiply.cuh"
#include "weigh.cuh"

using namespace lamella::depthwise;
using namespace lamella::pointwise;
