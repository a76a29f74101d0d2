#pragma once

/// What the kernels need of the machine. These files are compiled ahead of time by nvcc and, for shapes that
/// nobody foresaw, at run time by NVRTC: they include nothing but each other.
namespace lamella::depthwise {

/// Sixteen-bit numbers as they lie in memory.
struct BFloat16 {
  unsigned short bits;
};
struct Float16 {
  unsigned short bits;
};

__device__ __forceinline__ float widen(float number) { return number; }
__device__ __forceinline__ float widen(BFloat16 number) {
  return __uint_as_float(static_cast<unsigned>(number.bits) << 16);
}
__device__ __forceinline__ float widen(Float16 number) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(number.bits));
  return wide;
}

/// Two numbers in one word, the first in its lower half.
__device__ __forceinline__ void widen_pair(unsigned pair, BFloat16, float& first, float& second) {
  first = __uint_as_float(pair << 16);
  second = __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ void widen_pair(unsigned pair, Float16, float& first, float& second) {
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
      : "=f"(first), "=f"(second)
      : "r"(pair));
}

/// Rounded to nearest even.
__device__ __forceinline__ unsigned narrow_pair(float first, float second, BFloat16) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
__device__ __forceinline__ unsigned narrow_pair(float first, float second, Float16) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
template <class T>
__device__ __forceinline__ T narrow(float number) {
  return {static_cast<unsigned short>(narrow_pair(number, 0.0f, T{}))};
}
template <>
__device__ __forceinline__ float narrow<float>(float number) {
  return number;
}

/// kBytes of global memory to shared memory without waiting for them; zeros if they do not exist. `global`
/// must be a place that can be read in any case.
template <int kBytes>
__device__ __forceinline__ void copy_ahead(void* shared, const void* global, bool exists) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared)), count = exists ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(count) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(kBytes), "r"(count)
                 : "memory");
}
/// The first `count` of 16 bytes, and zeros.
__device__ __forceinline__ void copy_ahead_part(void* shared, const void* global, int count) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(count) : "memory");
}
/// Ends a group of copies.
__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most kGroups of this thread's groups are under way.
template <int kGroups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

}  // namespace lamella::depthwise
