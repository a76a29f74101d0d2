#include "lamella/core/version.h"

#include "core/cuda_backend.h"

// Given by the build; absent where the file is compiled by hand.
#ifndef LAMELLA_BUILD_FLAGS
#define LAMELLA_BUILD_FLAGS "unknown"
#endif

namespace lamella {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown compiler";
#endif
}

struct Instructions {
  std::string compiled;  // what the compiler may use
  std::string missing;   // of these, what this machine does not have
  void add(const char* name, bool present) {
    compiled.append(compiled.empty() ? "" : " ").append(name);
    if (!present) missing.append(missing.empty() ? "" : " ").append(name);
  }
};

Instructions instructions() {
  Instructions result;
#if defined(__x86_64__)
  result.add("x86-64", true);
#ifdef __SSE4_2__
  result.add("sse4.2", __builtin_cpu_supports("sse4.2"));
#endif
#ifdef __AVX__
  result.add("avx", __builtin_cpu_supports("avx"));
#endif
#ifdef __AVX2__
  result.add("avx2", __builtin_cpu_supports("avx2"));
#endif
#ifdef __FMA__
  result.add("fma", __builtin_cpu_supports("fma"));
#endif
#ifdef __F16C__
  result.add("f16c", true);
#endif
#ifdef __AVX512F__
  result.add("avx512f", __builtin_cpu_supports("avx512f"));
#endif
#ifdef __AVX512BW__
  result.add("avx512bw", __builtin_cpu_supports("avx512bw"));
#endif
#elif defined(__aarch64__)
  result.add("aarch64", true);
#else
  result.add("unknown", true);
#endif
  return result;
}

}  // namespace

const char* version() { return LAMELLA_VERSION; }

std::string build_info() {
  const Instructions isa = instructions();
  std::string text =
      std::string("lamella ") + version() + "; " + compiler() + "; flags: " LAMELLA_BUILD_FLAGS;
#ifndef NDEBUG
  text += "; assertions on";
#endif
  text += "; CPU: " + isa.compiled;
  if (!isa.missing.empty()) text += " (this machine lacks " + isa.missing + ")";
  return text + "; CUDA: " + detail::cuda::version();
}

}  // namespace lamella
