#pragma once

#include <string>

#include "core/check.h"
#include "lamella/layers/conv_geometry.h"

namespace lamella::detail {

/// "(3, 7)", as PyTorch prints it.
inline std::string pair_text(Size2 size) { return concat('(', size.h, ", ", size.w, ')'); }

}  // namespace lamella::detail
