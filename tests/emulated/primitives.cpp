#include "layers/depthwise_conv2d/cuda/device/primitives.cuh"

#include "lamella/core/dtype.h"

namespace lamella::depthwise {
namespace {

using emulated::exchange;
using emulated::lane;
using emulated::shared_memory;

/// So many matrices of 8x8 numbers. Each lane reads the row whose address it has.
void load_some(unsigned* matrix, int count, unsigned row, bool transposed) {
  std::uint32_t words[4] = {};
  if (lane() < count * 8) {
    emulated::check_shared(shared_memory() + row, sizeof(words), sizeof(words), "a matrix's row");
    std::memcpy(words, shared_memory() + row, sizeof(words));
  }
  const emulated::Exchanged rows = exchange(words, 4);
  const int of_lane = lane() / 4, in_pair = lane() % 4 * 2;
  for (int m = 0; m < count; ++m) {
    const auto number = [&](int r, int column) {
      return rows[m * 8 + r][column / 2] >> column % 2 * 16 & 0xffffU;
    };
    matrix[m] = transposed ? number(in_pair, of_lane) | number(in_pair + 1, of_lane) << 16
                           : rows[m * 8 + of_lane][in_pair / 2];
  }
}
void store_some(unsigned row, const unsigned* matrix, int count) {
  if (lane() < count * 8) emulated::check_shared(shared_memory() + row, 16, 16, "a matrix's row");
  const emulated::Exchanged rows = exchange(&row, 1);
  for (int m = 0; m < count; ++m)
    std::memcpy(shared_memory() + rows[m * 8 + lane() / 4][0] + 4 * (lane() % 4), &matrix[m], 4);
}

/// Calls move(place in shared memory, number in the tensor or null) for each number of a box.
template <class Move>
void each_number(const EmulatedTensor& tensor, unsigned shared, const std::int64_t (&first)[4],
                 const Move& move) {
  constexpr std::size_t kBoxAlignment = 128;  // times as many chunks as a swizzle exchanges: its period
  emulated::check_shared(shared_memory() + shared, 1,
                         kBoxAlignment * static_cast<std::size_t>(tensor.swizzle + 1), "a box");
  std::int64_t place = shared;
  const int(&box)[4] = tensor.box;
  for (int i = 0; i < box[3]; ++i)
    for (int r = 0; r < box[2]; ++r)
      for (int p = 0; p < box[1]; ++p)
        for (int c = 0; c < box[0]; ++c, place += tensor.number) {
          const std::int64_t at[4] = {first[0] + c, first[1] + std::int64_t{p} * tensor.steps[1],
                                      first[2] + std::int64_t{r} * tensor.steps[2], first[3] + i};
          unsigned char* number = tensor.data;
          for (int axis = 0; axis < 4; ++axis) {
            if (at[axis] < 0 || at[axis] >= tensor.sizes[axis]) number = nullptr;
            if (number != nullptr) number += at[axis] * tensor.strides[axis];
          }
          unsigned char* const swizzled = shared_memory() + (place ^ (place >> 7 & tensor.swizzle) << 4);
          const auto bytes = static_cast<std::size_t>(tensor.number);
          emulated::check_shared(swizzled, bytes, bytes, "a box");
          move(swizzled, number);
        }
}
const EmulatedTensor& tensor_of(const TensorMap& map) {
  if (map.opaque[0] == 0) throw emulated::Fault("the copy engine was told nothing of a tensor");
  return *reinterpret_cast<const EmulatedTensor*>(map.opaque[0]);
}

/// What the copy engine would not take: a GPU ends the kernel there.
void check_box(const EmulatedTensor& tensor, int first) {
  constexpr int kMostExtent = 256, kAligned = 16;
  emulated::check_alignment(tensor.data, kAligned, "a tensor of the copy engine");
  for (int axis = 0; axis < 4; ++axis)
    if (tensor.box[axis] > kMostExtent) throw emulated::Fault("a box of more than 256 numbers");
  for (int axis = 1; axis < 4; ++axis)
    if (tensor.sizes[axis] > 1 && tensor.strides[axis] % kAligned != 0)
      throw emulated::Fault("a stride that is no multiple of sixteen bytes");
  if (tensor.number == 8 && std::int64_t{first} * tensor.number % kAligned != 0)
    throw emulated::Fault("a box of eight-byte numbers that does not begin with sixteen bytes");
}

}  // namespace

float widen(Float16 number) { return static_cast<float>(std::bit_cast<lamella::Float16>(number.bits)); }
unsigned short narrow_bits(float number, BFloat16) {
  return std::bit_cast<unsigned short>(lamella::BFloat16(number));
}
unsigned short narrow_bits(float number, Float16) {
  return std::bit_cast<unsigned short>(lamella::Float16(number));
}

void load_matrices(unsigned (&matrix)[4], unsigned row) { load_some(matrix, 4, row, false); }
void load_matrices(unsigned (&matrix)[2], unsigned row) { load_some(matrix, 2, row, false); }
void load_matrices_transposed(unsigned (&matrix)[4], unsigned row) { load_some(matrix, 4, row, true); }
void load_matrices_transposed(unsigned (&matrix)[2], unsigned row) { load_some(matrix, 2, row, true); }
void store_matrices(unsigned row, unsigned m0, unsigned m1, unsigned m2, unsigned m3) {
  const unsigned matrix[4] = {m0, m1, m2, m3};
  store_some(row, matrix, 4);
}
void store_matrices(unsigned row, unsigned m0, unsigned m1) {
  const unsigned matrix[2] = {m0, m1};
  store_some(row, matrix, 2);
}

unsigned transpose_matrix(unsigned matrix) {
  const emulated::Exchanged rows = exchange(&matrix, 1);
  const int of_lane = lane() / 4, in_pair = lane() % 4 * 2;
  const auto number = [&](int r, int column) {
    return rows[r * 4 + column / 2][0] >> column % 2 * 16 & 0xffffU;
  };
  return number(in_pair, of_lane) | number(in_pair + 1, of_lane) << 16;
}

void load_box(unsigned to, const TensorMap& map, int channel, int pixel, int row, int image,
              unsigned barrier) {
  const EmulatedTensor& tensor = tensor_of(map);
  check_box(tensor, channel);
  emulated::load_later([&tensor, to, channel, pixel, row, image, barrier] {
    std::size_t bytes = 0;
    const auto of_number = static_cast<std::size_t>(tensor.number);
    each_number(tensor, to, {channel, pixel, row, image},
                [&](unsigned char* shared, const unsigned char* number) {
                  if (number != nullptr)
                    std::memcpy(shared, number, of_number);
                  else
                    std::memset(shared, 0, of_number);
                  bytes += of_number;
                });
    emulated::bytes_arrive(barrier, bytes);
  });
}
void store_box(const TensorMap& map, unsigned from, int channel, int pixel, int row, int image) {
  const EmulatedTensor& tensor = tensor_of(map);
  const std::int64_t first[4] = {channel, pixel, row, image};
  for (int axis = 0; axis < 4; ++axis)
    if (first[axis] < 0 || first[axis] >= tensor.sizes[axis])
      throw emulated::Fault("a box is stored from outside its tensor on");
  emulated::store_later([&tensor, from, channel, pixel, row, image] {
    each_number(tensor, from, {channel, pixel, row, image},
                [&](const unsigned char* shared, unsigned char* number) {
                  if (number != nullptr) std::memcpy(number, shared, static_cast<std::size_t>(tensor.number));
                });
  });
}
void load_bytes(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  emulated::check_shared(shared_memory() + to, bytes, 16, "a run");
  emulated::check_alignment(from, 16, "a run's source");
  emulated::load_later([to, from, bytes, barrier] {
    std::memcpy(shared_memory() + to, from, bytes);
    emulated::bytes_arrive(barrier, bytes);
  });
}
void store_bytes(void* to, unsigned from, unsigned bytes) {
  emulated::check_shared(shared_memory() + from, bytes, 16, "a run");
  emulated::check_alignment(to, 16, "a run's destination");
  emulated::store_later([to, from, bytes] { std::memcpy(to, shared_memory() + from, bytes); });
}

}  // namespace lamella::depthwise
