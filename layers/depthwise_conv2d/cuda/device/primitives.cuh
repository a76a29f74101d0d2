#pragma once

#include "work.cuh"

/// What the kernels need of the machine. These files are compiled at run time, by NVRTC, for the sizes of a
/// problem: they include nothing but each other. Tests compile them for a machine of their own
/// (tests/emulated).
#ifdef LAMELLA_EMULATED
#include "tests/emulated/primitives.h"
#else
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

/// v · clamp(v + 3, 0, 6) / 6, for what is rounded to sixteen bits: a bound to 0 and 1 costs nothing, but
/// near -3 a float32 would miss digits. NaN stays NaN.
__device__ __forceinline__ float hardswish(float v) { return v * __saturatef(fmaf(v, 1.0f / 6.0f, 0.5f)); }

/// NaN stays NaN.
__device__ __forceinline__ float clamp(float x, float low, float high) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(low));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(y), "f"(high));
  return y;
#else
  return x < low ? low : x > high ? high : x;
#endif
}

/// From here on the compiler knows nothing of it.
__device__ __forceinline__ void hold_word(unsigned& word) { asm volatile("" : "+r"(word)); }

/// The word that begins `bits` bits, at most 31, into two words.
__device__ __forceinline__ unsigned shift_words(unsigned low, unsigned high, unsigned bits) {
  return __funnelshift_r(low, high, bits);
}

/// Byte i is number `selector` >> 4 · i & 7 of the eight bytes of two words.
__device__ __forceinline__ unsigned select_bytes(unsigned low, unsigned high, unsigned selector) {
  return __byte_perm(low, high, selector);
}
/// The lower halves of two words, or the upper ones, as one.
__device__ __forceinline__ unsigned join_low(unsigned first, unsigned second) {
  return __byte_perm(first, second, 0x5410);
}
__device__ __forceinline__ unsigned join_high(unsigned first, unsigned second) {
  return __byte_perm(first, second, 0x7632);
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

template <class T>
__device__ __forceinline__ unsigned clamp_numbers(unsigned pair, unsigned low, unsigned high, T type) {
  float x[2], least[2], most[2];
  widen_pair(pair, type, x[0], x[1]);
  widen_pair(low, type, least[0], least[1]), widen_pair(high, type, most[0], most[1]);
  return narrow_pair(clamp(x[0], least[0], most[0]), clamp(x[1], least[1], most[1]), type);
}
/// clamp() of both numbers of words.
__device__ __forceinline__ unsigned clamp_pair(unsigned pair, unsigned low, unsigned high, BFloat16) {
#if __CUDA_ARCH__ >= 800
  asm("max.NaN.bf16x2 %0, %0, %1;" : "+r"(pair) : "r"(low));
  asm("min.NaN.bf16x2 %0, %0, %1;" : "+r"(pair) : "r"(high));
  return pair;
#else
  return clamp_numbers(pair, low, high, BFloat16{});
#endif
}
__device__ __forceinline__ unsigned clamp_pair(unsigned pair, unsigned low, unsigned high, Float16) {
#if __CUDA_ARCH__ >= 800
  asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(low));
  asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(high));
  return pair;
#else
  return clamp_numbers(pair, low, high, Float16{});
#endif
}
__device__ __forceinline__ unsigned subtract_pair(unsigned a, unsigned b, BFloat16) {
  unsigned apart = 0;
#if __CUDA_ARCH__ >= 900
  asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(apart) : "r"(a), "r"(b));
#endif
  return apart;
}
__device__ __forceinline__ unsigned subtract_pair(unsigned a, unsigned b, Float16) {
  unsigned apart = 0;
#if __CUDA_ARCH__ >= 900
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(apart) : "r"(a), "r"(b));
#endif
  return apart;
}
/// All bits of those of two numbers that are not below `least` and not above `most`; none of what is no
/// number.
__device__ __forceinline__ unsigned within_pair(unsigned pair, unsigned least, unsigned most, BFloat16) {
  unsigned above = 0, below = 0;
#if __CUDA_ARCH__ >= 900
  asm("set.ge.u32.bf16x2 %0, %1, %2;" : "=r"(above) : "r"(pair), "r"(least));
  asm("set.le.u32.bf16x2 %0, %1, %2;" : "=r"(below) : "r"(pair), "r"(most));
#endif
  return above & below;
}
__device__ __forceinline__ unsigned within_pair(unsigned pair, unsigned least, unsigned most, Float16) {
  unsigned above = 0, below = 0;
#if __CUDA_ARCH__ >= 900
  asm("set.ge.u32.f16x2 %0, %1, %2;" : "=r"(above) : "r"(pair), "r"(least));
  asm("set.le.u32.f16x2 %0, %1, %2;" : "=r"(below) : "r"(pair), "r"(most));
#endif
  return above & below;
}
template <>
__device__ __forceinline__ float narrow<float>(float number) {
  return number;
}

/// Words to global memory in one instruction. Left to itself the compiler sometimes takes such a vector
/// apart.
__device__ __forceinline__ void store_global(void* to, const unsigned (&word)[1]) {
  *static_cast<unsigned*>(to) = word[0];
}
__device__ __forceinline__ void store_global(void* to, const unsigned (&word)[2]) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(word[0]),
               "r"(word[1])
               : "memory");
}
__device__ __forceinline__ void store_global(void* to, const unsigned (&word)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(word[0]),
               "r"(word[1]), "r"(word[2]), "r"(word[3])
               : "memory");
}

/// The same to shared memory.
__device__ __forceinline__ void store_shared(unsigned to, const unsigned (&word)[1]) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word[0]) : "memory");
}
__device__ __forceinline__ void store_shared(unsigned to, const unsigned (&word)[2]) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(word[0]), "r"(word[1]) : "memory");
}
__device__ __forceinline__ void store_shared(unsigned to, const unsigned (&word)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]),
               "r"(word[3])
               : "memory");
}

/// kBytes of global memory to shared memory without waiting for them; zeros if they do not exist: then
/// nothing is read.
template <int kBytes>
__device__ __forceinline__ void copy_ahead(unsigned to, const void* global, bool exists) {
  const unsigned count = exists ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(count)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(kBytes),
                 "r"(count)
                 : "memory");
}
template <int kBytes>
__device__ __forceinline__ void copy_ahead(void* shared, const void* global, bool exists) {
  copy_ahead<kBytes>(static_cast<unsigned>(__cvta_generic_to_shared(shared)), global, exists);
}
/// The first `count` of kBytes, and zeros.
template <int kBytes = 16>
__device__ __forceinline__ void copy_ahead_part(void* shared, const void* global, int count) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(count)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(kBytes),
                 "r"(count)
                 : "memory");
}
/// Ends a group of copies.
__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most kGroups of this thread's groups are under way.
template <int kGroups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

/// Waits until what is ahead of this kernel in its stream has ended, and lets the next kernel's blocks begin
/// (core/cuda/launch.cuh). To be called by all threads, before they touch global memory.
__device__ __forceinline__ void wait_for_stream() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait; griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Keeps a number in its register: the compiler would rather compute some anew in every turn of a loop.
__device__ __forceinline__ void hold(int& number) { asm volatile("" : "+r"(number)); }
__device__ __forceinline__ void hold(unsigned& number) { asm volatile("" : "+r"(number)); }

/// An address as the instructions below take it.
__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

/// Sixteen bytes of shared memory, at an address that divides by as many.
__device__ __forceinline__ void load_shared(unsigned (&word)[4], unsigned from) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(from));
}

/// Four 8x8 matrices of sixteen-bit numbers from shared memory; lane l has the address of row l % 8 of matrix
/// l / 8, and gets numbers 2 · (l % 4) and the next of row l / 4 of each.
__device__ __forceinline__ void load_matrices(unsigned (&matrix)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(row));
}
/// The same, with rows and columns exchanged in what the lanes get.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&matrix)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(row));
}
/// Half of load_matrices(): lanes 0 to 15 have the addresses.
__device__ __forceinline__ void load_matrices(unsigned (&matrix)[2], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(matrix[0]), "=r"(matrix[1])
               : "r"(row));
}
__device__ __forceinline__ void load_matrices_transposed(unsigned (&matrix)[2], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(matrix[0]), "=r"(matrix[1])
               : "r"(row));
}
/// Of an 8x8 matrix as load_matrices() gives it: as load_matrices_transposed() would.
__device__ __forceinline__ unsigned transpose_matrix(unsigned matrix) {
  unsigned transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(matrix));
  return transposed;
}
/// Waits for as many threads of the block as say the same; `name` 1 … 15.
__device__ __forceinline__ void synchronize_some(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}
/// __syncthreads() of so many threads: a block of a pair (pairs.cuh) may have more, which have ended.
__device__ __forceinline__ void synchronize_block(int threads) { synchronize_some(0, threads); }
/// Waits for the warp's other lanes, and sees what they wrote.
__device__ __forceinline__ void synchronize_warp() { __syncwarp(); }

/// sum += a · b for a of 16x16 and b of 16x8 numbers: a0 … a3 are the quarters (0, 0), (8, 0), (0, 8) and (8,
/// 8) of a as load_matrices() gives them; b0 and b1 the halves of b, transposed. Lane l has in `sum` numbers
/// 2 · (l % 4) and the next of rows l / 4 and l / 4 + 8.
__device__ __forceinline__ void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2,
                                             unsigned a3, unsigned b0, unsigned b1, BFloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2,
                                             unsigned a3, unsigned b0, unsigned b1, Float16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
/// For a of 16x8 and b of 8x8.
__device__ __forceinline__ void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned b0,
                                             BFloat16) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(b0));
}
__device__ __forceinline__ void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned b0,
                                             Float16) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(b0));
}

/// A barrier in shared memory at `barrier`, whose phases end when so many threads, and all bytes that they
/// expect, have arrived. To be made by one thread, before the block meets.
__device__ __forceinline__ void make_barrier(unsigned barrier, unsigned threads) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1; fence.mbarrier_init.release.cluster;" ::"r"(barrier),
               "r"(threads)
               : "memory");
}
__device__ __forceinline__ void arrive(unsigned barrier) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0];}" ::"r"(barrier) : "memory");
}
/// Arrives, and expects so many bytes.
__device__ __forceinline__ void expect_bytes(unsigned barrier, unsigned bytes) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;}" ::"r"(barrier),
               "r"(bytes)
               : "memory");
}
/// Waits for the end of a phase of this parity. The first is 0; before it one of parity 1 has ended.
__device__ __forceinline__ void wait_for_phase(unsigned barrier, unsigned parity) {
  asm volatile(
      "{.reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @done bra end; bra "
      "again; end:}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// Copies a box of [image][row][pixel][channel] from these coordinates on to shared memory; zeros for what is
/// not in the tensor.
__device__ __forceinline__ void load_box(unsigned to, const TensorMap& map, int channel, int pixel, int row,
                                         int image, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4, %5}], [%6];" ::"r"(to),
      "l"(&map), "r"(channel), "r"(pixel), "r"(row), "r"(image), "r"(barrier)
      : "memory");
}
/// The other way; nothing where there is no tensor.
__device__ __forceinline__ void store_box(const TensorMap& map, unsigned from, int channel, int pixel,
                                          int row, int image) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
      "r"(channel), "r"(pixel), "r"(row), "r"(image), "r"(from)
      : "memory");
}
__device__ __forceinline__ void end_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Waits until this thread's stores have read what they store.
__device__ __forceinline__ void wait_until_stores_have_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
/// What was written to shared memory before may be read by stores after, and overwritten by loads.
__device__ __forceinline__ void hand_to_copy_engine() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Copies neighbouring bytes, whose number and addresses divide by 16.
__device__ __forceinline__ void load_bytes(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void store_bytes(void* to, unsigned from, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}

/// The other way of load_matrices().
__device__ __forceinline__ void store_matrices(unsigned row, unsigned m0, unsigned m1, unsigned m2,
                                               unsigned m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(m0),
               "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}
__device__ __forceinline__ void store_matrices(unsigned row, unsigned m0, unsigned m1) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(m0), "r"(m1)
               : "memory");
}

}  // namespace lamella::depthwise
#endif
