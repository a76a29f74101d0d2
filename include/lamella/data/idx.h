#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/data/dataset.h"
#include "lamella/tensor/tensor.h"

namespace lamella::data {

/// An IDX file (Y. LeCun, C. Cortes, C. J. C. Burges: the MNIST database), gzipped or not whatever its name.
/// Element types become: unsigned byte uint8; signed byte, short and int int32; float float32; double
/// float64. The size that the header declares is checked against what is there before memory is taken. Throws
/// IoError naming the path: missing, truncated, corrupt, too long, more than kMaxAxes axes.
LAMELLA_API Tensor read_idx(const std::filesystem::path& path);

/// Writes a uint8, int32, float32 or float64 CPU tensor as IDX, gzipped if the name ends in ".gz", whole or
/// not at all. Throws DTypeError for other types, DeviceError off the CPU, ShapeError for no axes or a size
/// of 2^32 and more, Error for an undefined tensor, IoError naming the path.
LAMELLA_API void write_idx(const std::filesystem::path& path, const Tensor& tensor);

/// Images [N,H,W] (or [N,H,W,3]) and labels [N], both of unsigned bytes, as MNIST has them, in memory.
/// Without `classes` the names are "0", "1", … up to the largest label. Throws IoError naming the file that
/// does not fit.
LAMELLA_API DatasetPtr idx_dataset(const std::filesystem::path& images, const std::filesystem::path& labels,
                                   std::vector<std::string> classes = {});

}  // namespace lamella::data
