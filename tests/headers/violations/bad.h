// clang-format off
#pragma once
// Not part of the library: four lines that check_includes.cmake must report, and some that it must not.
#include <cstdint>
#include <vector>
#include <spdlog/spdlog.h>
#include "lamella/core/dtype.h"
#include "core/check.h"
#  if defined(LAMELLA_HAVE_CUDA)
#endif
#ifdef __CUDACC__
#endif
#if __cplusplus > 202002L
#endif
