#pragma once

#include "machine.h"

/// layers/depthwise_conv2d/cuda/device/primitives.cuh for the emulated machine.
namespace lamella::depthwise {

struct BFloat16 {
  unsigned short bits;
};
struct Float16 {
  unsigned short bits;
};

inline float widen(float number) { return number; }
inline float widen(BFloat16 number) { return std::bit_cast<float>(static_cast<unsigned>(number.bits) << 16); }
float widen(Float16 number);
unsigned short narrow_bits(float number, BFloat16);
unsigned short narrow_bits(float number, Float16);

template <class T>
void widen_pair(unsigned pair, T, float& first, float& second) {
  first = widen(T{static_cast<unsigned short>(pair)});
  second = widen(T{static_cast<unsigned short>(pair >> 16)});
}
/// As in the GPU's: tests of what is done with it take it from here, too.
inline float hardswish(float v) { return v * std::clamp(std::fma(v, 1.0F / 6.0F, 0.5F), 0.0F, 1.0F); }
inline float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
inline void hold_word(unsigned&) {}
inline unsigned shift_words(unsigned low, unsigned high, unsigned bits) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> bits);
}
inline unsigned select_bytes(unsigned low, unsigned high, unsigned selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(high) << 32 | low;
  unsigned word = 0;
  for (unsigned i = 0; i < 4; ++i)
    word |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return word;
}
inline unsigned join_low(unsigned first, unsigned second) { return (first & 0xffffU) | second << 16; }
inline unsigned join_high(unsigned first, unsigned second) { return first >> 16 | (second & 0xffff0000U); }
template <class T>
unsigned narrow_pair(float first, float second, T type) {
  return narrow_bits(first, type) | static_cast<unsigned>(narrow_bits(second, type)) << 16;
}
template <class T>
T narrow(float number) {
  return {narrow_bits(number, T{})};
}
template <>
inline float narrow<float>(float number) {
  return number;
}
template <class T>
unsigned clamp_pair(unsigned pair, unsigned low, unsigned high, T type) {
  float number[2], least[2], most[2];
  widen_pair(pair, type, number[0], number[1]);
  widen_pair(low, type, least[0], least[1]), widen_pair(high, type, most[0], most[1]);
  return narrow_pair(clamp(number[0], least[0], most[0]), clamp(number[1], least[1], most[1]), type);
}
template <class T>
unsigned subtract_pair(unsigned a, unsigned b, T type) {
  float of_a[2], of_b[2];
  widen_pair(a, type, of_a[0], of_a[1]), widen_pair(b, type, of_b[0], of_b[1]);
  return narrow_pair(of_a[0] - of_b[0], of_a[1] - of_b[1], type);
}
template <class T>
unsigned within_pair(unsigned pair, unsigned least, unsigned most, T type) {
  float number[2], low[2], high[2];
  widen_pair(pair, type, number[0], number[1]);
  widen_pair(least, type, low[0], low[1]), widen_pair(most, type, high[0], high[1]);
  return (number[0] >= low[0] && number[0] <= high[0] ? 0xffffU : 0U) |
         (number[1] >= low[1] && number[1] <= high[1] ? 0xffff0000U : 0U);
}

template <int kWords>
void store_global(void* to, const unsigned (&word)[kWords]) {
  emulated::check_alignment(to, sizeof(word), "a vector store");
  std::memcpy(to, word, sizeof(word));
}

template <int kWords>
void store_shared(unsigned to, const unsigned (&word)[kWords]) {
  unsigned char* const at = emulated::shared_memory() + to;
  emulated::check_shared(at, sizeof(word), sizeof(word), "a vector store");
  std::memcpy(at, word, sizeof(word));
}

template <int kBytes>
void copy_ahead(void* to, const void* from, bool exists) {
  emulated::check_shared(to, kBytes, kBytes, "a copy's destination");
  if (exists) emulated::check_alignment(from, kBytes, "a copy's source");
  emulated::copy_later(to, from, exists ? kBytes : 0, exists ? 0 : kBytes);
}
template <int kBytes>
void copy_ahead(unsigned to, const void* from, bool exists) {
  copy_ahead<kBytes>(emulated::shared_memory() + to, from, exists);
}
template <int kBytes = 16>
void copy_ahead_part(void* to, const void* from, int count) {
  emulated::check_shared(to, kBytes, kBytes, "a copy's destination");
  emulated::check_alignment(from, kBytes, "a copy's source");
  emulated::copy_later(to, from, static_cast<std::size_t>(count), static_cast<std::size_t>(kBytes - count));
}
inline void end_copies() { emulated::end_copies(); }
template <int kGroups>
void wait_for_copies() {
  emulated::wait_for_copies(kGroups);
}

inline void hold(int&) {}
inline void hold(unsigned&) {}

inline void wait_for_stream() {}
inline unsigned shared_address(const void* at) {
  return static_cast<unsigned>(static_cast<const unsigned char*>(at) - emulated::shared_memory());
}
inline void synchronize_warp() { emulated::wait_for_warp(); }
inline void synchronize_some(int name, int threads) { emulated::wait_for_some(name, threads); }
inline void synchronize_block(int threads) { synchronize_some(0, threads); }

inline void load_shared(unsigned (&word)[4], unsigned from) {
  emulated::check_shared(emulated::shared_memory() + from, 16, 16, "a vector");
  std::memcpy(word, emulated::shared_memory() + from, 16);
}
void load_matrices(unsigned (&matrix)[4], unsigned row);
void load_matrices(unsigned (&matrix)[2], unsigned row);
void load_matrices_transposed(unsigned (&matrix)[4], unsigned row);
void load_matrices_transposed(unsigned (&matrix)[2], unsigned row);
void store_matrices(unsigned row, unsigned m0, unsigned m1, unsigned m2, unsigned m3);
void store_matrices(unsigned row, unsigned m0, unsigned m1);
unsigned transpose_matrix(unsigned matrix);

/// sum += a · b, of which the lanes hold words: a row-major in quarters, b in halves.
template <class T>
void multiply_words(float (&sum)[4], const std::uint32_t (&words)[6], int depth) {
  const emulated::Exchanged all = emulated::exchange(words, 6);
  const int row = emulated::lane() / 4, column = emulated::lane() % 4 * 2;
  float a[2][16], b[2][16];
  for (int k = 0; k < depth; k += 2)
    for (int i = 0; i < 2; ++i) {
      widen_pair(all[row * 4 + k % 8 / 2][i + k / 8 * 2], T{}, a[i][k], a[i][k + 1]);
      widen_pair(all[(column + i) * 4 + k % 8 / 2][4 + k / 8], T{}, b[i][k], b[i][k + 1]);
    }
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < depth; ++k) sum[i] += a[i / 2][k] * b[i % 2][k];
}
template <class T>
void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                  unsigned b1, T) {
  multiply_words<T>(sum, {a0, a1, a2, a3, b0, b1}, 16);
}
template <class T>
void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned b0, T) {
  multiply_words<T>(sum, {a0, a1, 0, 0, b0, 0}, 8);
}

inline void make_barrier(unsigned barrier, unsigned threads) { emulated::make_barrier(barrier, threads); }
inline void arrive(unsigned barrier) { emulated::arrive(barrier, 0); }
inline void expect_bytes(unsigned barrier, unsigned bytes) { emulated::arrive(barrier, bytes); }
inline void wait_for_phase(unsigned barrier, unsigned parity) { emulated::wait_for_phase(barrier, parity); }

/// What a TensorMap points to here: [image][row][pixel][channel] of numbers of so many bytes.
struct EmulatedTensor {
  unsigned char* data = nullptr;
  std::int64_t sizes[4] = {}, strides[4] = {};  ///< channel first; strides in bytes
  int box[4] = {}, steps[4] = {1, 1, 1, 1};
  int swizzle = 0;  ///< which bits of the chunk's number change with the place: 7, 3, 1
  int number = 2;
};
struct TensorMap;
void load_box(unsigned to, const TensorMap& map, int channel, int pixel, int row, int image,
              unsigned barrier);
void store_box(const TensorMap& map, unsigned from, int channel, int pixel, int row, int image);
void load_bytes(unsigned to, const void* from, unsigned bytes, unsigned barrier);
void store_bytes(void* to, unsigned from, unsigned bytes);
inline void end_stores() { emulated::end_stores(); }
inline void wait_until_stores_have_read() { emulated::finish_stores(); }
inline void hand_to_copy_engine() {}

}  // namespace lamella::depthwise
