#pragma once

#include "lamella/core/export.h"

namespace lamella {

/// Lets GPUs round the operands of float32 matrix products and convolutions (but not of depthwise ones) to
/// TF32, with 10 fraction bits in place of 23; sums stay float32. Several times faster where a product is not
/// bound by memory. For the whole process; off at the start. Does nothing on the CPU.
LAMELLA_API void set_allow_tf32(bool allow);
/// What was set last.
LAMELLA_API bool allow_tf32();

}  // namespace lamella
