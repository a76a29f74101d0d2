// All kernels: what is compiled at run time.
#include "boxes_backward.cuh"
#include "boxes_forward.cuh"
#include "columns.cuh"
#include "diagonals.cuh"
#include "direct.cuh"
#include "float_boxes.cuh"
#include "matrices.cuh"
#include "pixels.cuh"
#include "planes.cuh"
#include "runs.cuh"
#include "whole_columns.cuh"

using namespace lamella::depthwise;
