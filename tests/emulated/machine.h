#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <stdexcept>

/// A GPU's multiprocessor on the CPU: it runs the threads of a block in turn, each until it waits for others.
/// Device code that takes what it needs of the machine from
/// layers/depthwise_conv2d/cuda/device/primitives.cuh runs on it unchanged, with every access checked: shared
/// memory begins as NaN, copies come as late as they may in one block and at once in another, and barriers
/// that not all reach and addresses that do not divide are found.

// CUDA's own names, and a move that checks.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming,performance-noexcept-move-constructor)
#define __device__
#define __host__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
namespace lamella::emulated {

/// Throws Fault unless `address` divides by `alignment`.
void check_alignment(const void* address, std::size_t alignment, const char* what);

/// Words that are read and written together, where their place divides by their size.
template <std::size_t kBytes>
struct Vector {
  Vector() = default;
  Vector(const Vector& other) { check_alignment(&other, kBytes, "a vector that is read"); }
  Vector& operator=(const Vector& other) {
    check_alignment(&other, kBytes, "a vector that is read");
    check_alignment(this, kBytes, "a vector that is written");
    return *this;
  }
  Vector& operator=(Vector&&) {
    check_alignment(this, kBytes, "a vector that is written");
    return *this;
  }
};

}  // namespace lamella::emulated

struct uint4 : lamella::emulated::Vector<16> {
  unsigned x, y, z, w;
};
struct uint2 : lamella::emulated::Vector<8> {
  unsigned x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {{}, x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {{}, x, y}; }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float number) { return std::bit_cast<unsigned>(number); }
using std::max;
using std::min;
extern dim3 threadIdx, blockIdx;
void __syncthreads();
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming,performance-noexcept-move-constructor)

namespace lamella::emulated {

/// What device code must not do. Names the access.
class Fault : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

inline constexpr std::size_t kSharedBytes = 227 << 10;

/// Runs a kernel's blocks one after the other. Throws Fault.
void run(std::int64_t blocks, int threads, std::size_t shared_bytes, const std::function<void()>& kernel);

// What primitives.cuh is made of here.
unsigned char* shared_memory();
/// Throws Fault unless `count` bytes at `address` are in shared memory, and the address divides by
/// `alignment`.
void check_shared(const void* address, std::size_t count, std::size_t alignment, const char* what);
void copy_later(void* to, const void* from, std::size_t count, std::size_t zeros);  ///< by cp.async
/// What such copies may read from now on, whole words of 16 bytes in front: [begin, end) of each. None: all.
struct Readable {
  const void *begin, *end;
};
void let_copies_read(std::initializer_list<Readable> tensors);
void end_copies();
void wait_for_copies(std::size_t groups);
void wait_for_warp();
void wait_for_some(int name, int threads);
/// What every lane of the warp gives here.
using Exchanged = const std::uint32_t (*)[8];
Exchanged exchange(const std::uint32_t* words, std::size_t count);
int lane();
// Barriers by address in shared memory.
void make_barrier(unsigned address, unsigned threads);
void arrive(unsigned address, std::size_t expected_bytes);
void bytes_arrive(unsigned address, std::size_t count);
void wait_for_phase(unsigned address, unsigned parity);
/// A load of the copy engine: at once, or when no thread can go on without it.
void load_later(std::function<void()> load);
/// A store of the copy engine: it reads shared memory as late as it may.
void store_later(std::function<void()> store);
void end_stores();
void finish_stores();  ///< of this thread

}  // namespace lamella::emulated
