#pragma once

#include "lamella/core/export.h"

namespace lamella {

/// Threads that CPU operators use, the caller's included. Results never depend on it: work is cut by shape.
/// The start value is LAMELLA_NUM_THREADS, else the cores this process may run on.
LAMELLA_API int num_threads();
/// Sets num_threads(); throws Error unless 1 <= count <= 1024. Not to be called while an operator runs.
LAMELLA_API void set_num_threads(int count);

}  // namespace lamella
