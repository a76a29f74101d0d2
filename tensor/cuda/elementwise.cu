#include "tensor/cuda/map.cuh"

#define LAMELLA_BACKEND cuda
#include "tensor/elementwise-inl.h"
