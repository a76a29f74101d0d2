#include "tensor/cpu/map.h"

#define LAMELLA_BACKEND cpu
#include "layers/activation/activation-inl.h"
