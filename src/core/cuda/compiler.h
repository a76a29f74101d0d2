#pragma once

#include <span>
#include <string>

#include "lamella/core/device.h"

/// Kernels for sizes that nobody foresaw, compiled when they are first needed.
namespace lamella::detail::cuda {

/// One file of device code. Files include each other by name, and nothing else.
struct SourceFile {
  const char* name;
  const char* text;
};

/// Device code that is compiled as a whole; the first file includes the others.
struct Sources {
  const char* name;  ///< for messages
  std::span<const SourceFile> files;
};

/// A compiled kernel, as cubin and the name that it has there.
struct CompiledKernel {
  std::string cubin;
  std::string symbol;
};

/// NVRTC's version, as "13.0". Throws Error where it cannot be loaded.
std::string compiler_version();

/// Compiles the kernel that `expression` names, as "copy<float, 4>", for an architecture such as 90 (sm_90).
/// Needs no GPU. Throws Error with the compiler's words where it refuses, and where NVRTC, which comes with
/// CUDA, cannot be loaded.
CompiledKernel compile(const Sources& sources, const std::string& expression, int architecture);

/// The same by way of the folder of compiled kernels, `$LAMELLA_KERNEL_CACHE`, else `lamella` in
/// `$XDG_CACHE_HOME` or in
/// `~/.cache`; an empty variable switches it off. A file there that does not belong to these sources, this
/// expression, architecture and compiler, or is damaged, is not used. That none can be written is no error.
CompiledKernel compile_or_load(const Sources& sources, const std::string& expression, int architecture);

/// What cudaLaunchKernel() takes for the kernel on the GPU `device`, compiled, loaded and allowed all of the
/// GPU's shared memory on its first use in the process; null where that fails, which is logged once for each
/// expression. Any thread may call it, and while a stream is captured, too; different kernels are compiled at
/// the same time.
const void* kernel_for(const Sources& sources, const std::string& expression, Device device);

/// Bytes of shared memory that a block of such a kernel may have on the GPU `device`; where there is none,
/// what it would have on compute capability 9.0.
int most_shared_bytes(Device device);

}  // namespace lamella::detail::cuda
