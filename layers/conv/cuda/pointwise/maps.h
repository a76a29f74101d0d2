#pragma once

#include <cstdint>

#include "lamella/core/dtype.h"
#include "layers/conv/cuda/pointwise/cut.h"

/// What the copy engine is told.
namespace lamella::cuda::pointwise {

/// A map of a matrix [rows][channels] of a half type without gaps, to move in boxes. False: it cannot be
/// moved so.
bool describe(const void* data, DType dtype, std::int64_t rows, std::int64_t channels,
              const lamella::pointwise::BoxShape& box, lamella::pointwise::TensorMap& map);

}  // namespace lamella::cuda::pointwise
