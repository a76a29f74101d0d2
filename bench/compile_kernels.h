#pragma once

#include <string>
#include <vector>

#include "core/cuda/compiler.h"

/// Kernels that are compiled at run time, before anything is measured.
namespace lamella::bench {

/// What compile_all() could do. Nowhere: nothing, without a folder of compiled kernels; they are compiled
/// when they are needed.
enum class Compiled { All, Some, Nowhere };
/// Compiles kernels into that folder on all cores, and says on standard error which do not compile. It starts
/// this program anew with --compile-share and four words, for which that must call compile_share().
Compiled compile_all(const std::vector<std::string>& kernels, int architecture);
/// What a process that compile_all() starts does: its share of the file's lines, kernels of `sources`. Not 0:
/// some do not compile.
int compile_share(const detail::cuda::Sources& sources, const std::vector<std::string>& words);

}  // namespace lamella::bench
