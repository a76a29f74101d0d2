#include "tensor/cpu/map.h"

#define LAMELLA_BACKEND cpu
#include "tensor/elementwise-inl.h"
