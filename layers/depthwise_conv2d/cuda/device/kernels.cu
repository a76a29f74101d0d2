// All kernels: what is compiled at run time.
#include "boxes_backward.cuh"
#include "boxes_forward.cuh"
#include "columns.cuh"
#include "diagonals.cuh"
#include "direct.cuh"
#include "float_boxes.cuh"
#include "hankel_boxes.cuh"
#include "matrices.cuh"
#include "pairs.cuh"
#include "pixels.cuh"
#include "planes.cuh"
#include "positions_correlate.cuh"
#include "positions_weigh.cuh"
#include "runs.cuh"
#include "toeplitz_boxes.cuh"
#include "whole_columns.cuh"

using namespace lamella::depthwise;
