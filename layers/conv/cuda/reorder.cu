#include <cstdint>

#include "core/cuda/launch.cuh"
#include "layers/conv/cuda/reorder.h"
#include "layers/conv/cuda/windows.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::TensorView;

namespace {

constexpr int kTile = 32, kDown = 8;

/// to[n][c][r] = from[n][r][c], a tile at a time.
template <class T>
__global__ void transpose(const T* from, std::int64_t rows, std::int64_t columns, std::int64_t row_tiles,
                          std::int64_t column_tiles, std::int64_t tiles, T* to) {
  detail::cuda::wait_for_stream();
  __shared__ T tile[kTile][kTile + 1];
  for (std::int64_t at = blockIdx.x; at < tiles; at += gridDim.x) {
    const std::int64_t matrix = at / (row_tiles * column_tiles), rest = at % (row_tiles * column_tiles);
    const std::int64_t row = rest / column_tiles * kTile, column = rest % column_tiles * kTile;
    const T* const source = from + matrix * rows * columns;
    T* const target = to + matrix * rows * columns;
    for (unsigned k = threadIdx.y; k < kTile; k += kDown)
      if (row + k < rows && column + threadIdx.x < columns)
        tile[k][threadIdx.x] = source[(row + k) * columns + column + threadIdx.x];
    __syncthreads();
    for (unsigned k = threadIdx.y; k < kTile; k += kDown)
      if (column + k < columns && row + threadIdx.x < rows)
        target[(column + k) * rows + row + threadIdx.x] = tile[threadIdx.x][k];
    __syncthreads();
  }
}

template <class T>
void transpose_as(const ConstTensorView& source, const TensorView& target, std::int64_t rows,
                  std::int64_t columns) {
  const std::int64_t row_tiles = divide_up(rows, kTile), column_tiles = divide_up(columns, kTile);
  const std::int64_t tiles = source.shape[0] * row_tiles * column_tiles;
  detail::cuda::launch_early("conv2d", target.device, detail::cuda::blocks_for(tiles, 1), dim3(kTile, kDown),
                             0, transpose<T>, source.as<T>(), rows, columns, row_tiles, column_tiles, tiles,
                             target.as<T>());
}

}  // namespace

void reorder(const ConstTensorView& source, const TensorView& target, bool to_channels_last) {
  const std::int64_t channels = source.shape[1], pixels = source.shape[2] * source.shape[3];
  const std::int64_t rows = to_channels_last ? channels : pixels,
                     columns = to_channels_last ? pixels : channels;
  switch (size_of(source.dtype)) {
    case 2:
      return transpose_as<std::uint16_t>(source, target, rows, columns);
    case 4:
      return transpose_as<std::uint32_t>(source, target, rows, columns);
    default:
      return transpose_as<std::uint64_t>(source, target, rows, columns);
  }
}

ChannelsLastCopy::ChannelsLastCopy(const ConstTensorView& like)
    : memory_(like.device, like.numel() * static_cast<std::int64_t>(size_of(like.dtype))),
      view_{memory_.as<void>(), like.shape, dense_strides(like.shape, MemoryFormat::ChannelsLast), like.dtype,
            like.device} {}

}  // namespace lamella::cuda
