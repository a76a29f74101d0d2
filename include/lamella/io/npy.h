#pragma once

#include <filesystem>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

/// Tensors in files.
namespace lamella::io {

/// The array in a .npy file (NumPy's format, versions 1.0, 2.0 and 3.0), row-major on the CPU. Takes bool,
/// uint8, int32, int64, float16, float32 and float64, of either byte order, in C or Fortran order. Sizes are
/// checked against the file before memory is taken. Throws IoError naming the path (missing, truncated,
/// corrupt, too long, more than kMaxAxes axes), DTypeError for other types.
LAMELLA_API Tensor load_npy(const std::filesystem::path& path);

/// Writes a CPU tensor as a .npy file (version 1.0, C order), whole or not at all. Throws DTypeError for
/// bfloat16, which the format lacks (convert with `.to(float32)`), DeviceError off the CPU, Error
/// for an undefined tensor, IoError naming the path.
LAMELLA_API void save_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace lamella::io
