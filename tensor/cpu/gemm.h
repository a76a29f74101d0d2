#pragma once

#include "tensor/gemm.h"

namespace lamella::cpu {

/// Work is cut into blocks by shape alone and long sums are added in a fixed order, so the bits do not depend
/// on the number of threads. C must not overlap A, B or bias. May be called from inside a parallel_for.
void gemm(const detail::Gemm& problem);

}  // namespace lamella::cpu
