#include "tensor/cuda/map.cuh"

#define LAMELLA_BACKEND cuda
#include "layers/activation/activation-inl.h"
