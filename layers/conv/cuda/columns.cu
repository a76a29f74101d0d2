#include <cstdint>
#include <type_traits>

#include "core/check.h"
#include "core/cuda/divisor.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "layers/conv/cuda/columns.h"
#include "tensor/cuda/map.cuh"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::cuda::Divisor;

namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kPacketBytes = 16;

/// A block of columns and what it is gathered from. Positions in an image fit in 32 bits, offsets need not.
struct Gather {
  std::uint32_t total;  ///< numbers of the columns, or packets of them
  Divisor rows, columns;
  Divisor groups;
  Divisor channels;  ///< of a group, or packets of them; in planes, of all groups
  Divisor taps_w;
  Divisor length;  ///< of the columns of a group, like `channels`
  std::int32_t taps_h;
  std::int32_t height, width;
  std::int32_t start_h, start_w, step_h, step_w, tap_h, tap_w;
  std::int64_t image, line, pixel, channel;  ///< strides of the source
};

struct Position {
  std::uint32_t image, row, column, group, channel, i, j;

  /// Whether the tap is inside the image; then also where, as an offset.
  __device__ bool inside(const Gather& g, std::int64_t& offset) const {
    const std::int32_t y =
        g.start_h + static_cast<std::int32_t>(row) * g.step_h + static_cast<std::int32_t>(i) * g.tap_h;
    const std::int32_t x =
        g.start_w + static_cast<std::int32_t>(column) * g.step_w + static_cast<std::int32_t>(j) * g.tap_w;
    offset = image * g.image + y * g.line + x * g.pixel + (group * g.channels.value + channel) * g.channel;
    return static_cast<std::uint32_t>(y) < static_cast<std::uint32_t>(g.height) &&
           static_cast<std::uint32_t>(x) < static_cast<std::uint32_t>(g.width);
  }
};

__device__ std::uint32_t split(std::uint32_t& value, const Divisor& by) {
  const std::uint32_t whole = by.divide(value), rest = value - whole * by.value;
  value = whole;
  return rest;
}

/// Pixel by pixel: [image][row][column][group][length], of which i, j and channel are the inner part.
struct ByPixel {
  Position at;
  std::uint32_t k;

  __device__ ByPixel(const Gather& g, std::uint32_t index) {
    k = split(index, g.length);
    at.group = split(index, g.groups);
    at.column = split(index, g.columns);
    at.row = split(index, g.rows);
    at.image = index;
    std::uint32_t tap = k;
    at.channel = split(tap, g.channels);
    at.j = split(tap, g.taps_w);
    at.i = tap;
  }
  /// Behind the last tap there are zeros.
  __device__ bool is_padding(const Gather& g) const { return at.i >= static_cast<std::uint32_t>(g.taps_h); }
  __device__ void advance(const Gather& g) {
    if (++at.channel == g.channels.value) {
      at.channel = 0;
      if (++at.j == g.taps_w.value) {
        at.j = 0;
        ++at.i;
      }
    }
    if (++k < g.length.value) return;
    k = at.channel = at.i = at.j = 0;
    if (++at.group < g.groups.value) return;
    at.group = 0;
    if (++at.column < g.columns.value) return;
    at.column = 0;
    if (++at.row < g.rows.value) return;
    at.row = 0;
    ++at.image;
  }
};

/// In planes: [image][channel][i][j][row][column].
struct ByPlane {
  Position at;

  __device__ ByPlane(const Gather& g, std::uint32_t index) {
    at.column = split(index, g.columns);
    at.row = split(index, g.rows);
    at.j = split(index, g.taps_w);
    at.i = split(index, g.length);  // the taps of a column
    at.channel = split(index, g.channels);
    at.group = 0;
    at.image = index;
  }
  __device__ bool is_padding(const Gather&) const { return false; }
  __device__ void advance(const Gather& g) {
    if (++at.column < g.columns.value) return;
    at.column = 0;
    if (++at.row < g.rows.value) return;
    at.row = 0;
    if (++at.j < g.taps_w.value) return;
    at.j = 0;
    if (++at.i < static_cast<std::uint32_t>(g.taps_h)) return;
    at.i = 0;
    if (++at.channel < g.channels.value) return;
    at.channel = 0;
    ++at.image;
  }
};

template <class From, class To>
__device__ To converted(From value) {
  if constexpr (std::is_same_v<From, To>)
    return value;
  else
    return detail::cuda::to_compute(value);
}

/// Sixteen bytes of the columns at a time, number by number.
template <class Order, class From, class To>
__global__ void gather_numbers(const From* source, const Gather g, To* columns) {
  detail::cuda::wait_for_stream();
  constexpr std::uint32_t kSize = Packet<To>::kSize;
  const std::uint32_t packets = (g.total + kSize - 1) / kSize, step = gridDim.x * blockDim.x;
  for (std::uint32_t packet = blockIdx.x * blockDim.x + threadIdx.x; packet < packets; packet += step) {
    Order order(g, packet * kSize);
    Packet<To> out;
#pragma unroll
    for (std::uint32_t n = 0; n < kSize; ++n) {
      std::int64_t offset;
      const bool inside = packet * kSize + n < g.total && !order.is_padding(g) && order.at.inside(g, offset);
      out.at[n] = To{};
      if (inside) out.at[n] = converted<From, To>(source[offset]);
      order.advance(g);
    }
    reinterpret_cast<Packet<To>*>(columns)[packet] = out;  // the last one may write zeros behind the columns
  }
}

/// The same where neighbouring channels fill sixteen bytes of the source.
template <class From, class To>
__global__ void gather_packets(const From* source, const Gather g, To* columns) {
  detail::cuda::wait_for_stream();
  constexpr std::uint32_t kSize = Packet<From>::kSize;
  struct alignas(16) Out {
    To at[kSize];
  };
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t packet = blockIdx.x * blockDim.x + threadIdx.x; packet < g.total; packet += step) {
    const ByPixel order(g, packet);
    std::int64_t offset;
    Packet<From> in{};
    if (order.at.inside(g, offset)) in = *reinterpret_cast<const Packet<From>*>(source + offset);
    Out out;
#pragma unroll
    for (std::uint32_t n = 0; n < kSize; ++n) out.at[n] = converted<From, To>(in.at[n]);
    reinterpret_cast<Out*>(columns)[packet] = out;
  }
}

template <class From, class To>
void gather(const ConvColumns& columns, const ConvBlock& block, const ConstTensorView& source, void* to) {
  const ConvWindows& w = columns.windows;
  const auto small = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  const auto divisor = [](std::int64_t value) { return Divisor(static_cast<std::uint32_t>(value)); };
  const std::int64_t plane = w.source.h * w.source.w;
  Gather g{};
  g.rows = divisor(block.rows);
  g.columns = divisor(block.columns);
  g.taps_h = small(w.taps.h);
  g.taps_w = divisor(w.taps.w);
  g.height = small(w.source.h);
  g.width = small(w.source.w);
  g.start_h = small(w.start.h + block.row * w.step.h);
  g.start_w = small(w.start.w + block.column * w.step.w);
  g.step_h = small(w.step.h);
  g.step_w = small(w.step.w);
  g.tap_h = w.taps.h > 1 ? small(w.tap_step.h) : 0;  // a single tap may have any step
  g.tap_w = w.taps.w > 1 ? small(w.tap_step.w) : 0;
  g.image = w.channels * plane;
  const From* const from = source.as<From>() + block.image * g.image;
  const auto run = [&](auto kernel, std::int64_t packets) {
    detail::cuda::launch_early("conv2d", source.device, detail::cuda::blocks_for(packets, kThreads), kThreads,
                               0, kernel, from, g, static_cast<To*>(to));
  };
  constexpr std::int64_t kTo = Packet<To>::kSize;
  if (!columns.channels_last) {
    g.line = w.source.w;
    g.pixel = 1;
    g.channel = plane;
    g.channels = divisor(w.channels);
    g.length = divisor(w.taps.h);
    const std::int64_t total = block.images * w.channels * w.taps.h * w.taps.w * block.pixels();
    g.total = static_cast<std::uint32_t>(total);
    return run(gather_numbers<ByPlane, From, To>, divide_up(total, kTo));
  }
  constexpr std::int64_t kFrom = Packet<From>::kSize;
  const bool packs = w.group_channels() % kFrom == 0 && columns.length == w.inputs() &&
                     detail::cuda::is_aligned(source.data);
  const std::int64_t unit = packs ? kFrom : 1;
  g.line = w.source.w * w.channels;
  g.pixel = w.channels;
  g.channel = unit;
  g.groups = divisor(w.groups);
  g.channels = divisor(w.group_channels() / unit);
  g.length = divisor(columns.length / unit);
  const std::int64_t total = block.images * block.pixels() * w.groups * columns.length / unit;
  g.total = static_cast<std::uint32_t>(total);
  if (packs) return run(gather_packets<From, To>, total);
  run(gather_numbers<ByPixel, From, To>, divide_up(total, kTo));
}

}  // namespace

ConvColumns::ConvColumns(const ConvWindows& windows, bool channels_last, DType dtype)
    : windows(windows), channels_last(channels_last), dtype(dtype), length(windows.inputs()) {
  // Rows of whole packets: matrix units read others slowly.
  if (channels_last) length = round_up(length, kPacketBytes / static_cast<std::int64_t>(size_of(dtype)));
  constexpr std::int64_t kLargest = (std::int64_t{1} << 31) - kPacketBytes, kLongestSide = 1 << 30;
  LAMELLA_CHECK(ShapeError, length <= kLargest / windows.groups, "conv2d: windows of ", windows.groups, " x ",
                length, " numbers are too large for a GPU");
  LAMELLA_CHECK(ShapeError, windows.source.h <= kLongestSide && windows.source.w <= kLongestSide,
                "conv2d: images of ", windows.source.h, " x ", windows.source.w,
                " pixels are too large for a GPU");
}

std::int64_t ConvColumns::pixel_bytes() const {
  return windows.groups * length * static_cast<std::int64_t>(size_of(dtype));
}

std::int64_t ConvColumns::bytes(const ConvBlock& block) const {
  return round_up(block.images * block.pixels() * pixel_bytes(), kPacketBytes);
}

void gather_columns(const ConvColumns& columns, const ConvBlock& block, const ConstTensorView& source,
                    void* to) {
  if (source.dtype != columns.dtype) {
    if (source.dtype == DType::BFloat16) return gather<BFloat16, float>(columns, block, source, to);
    return gather<Float16, float>(columns, block, source, to);
  }
  switch (size_of(columns.dtype)) {
    case 2:
      return gather<std::uint16_t, std::uint16_t>(columns, block, source, to);
    case 4:
      return gather<float, float>(columns, block, source, to);
    default:
      return gather<double, double>(columns, block, source, to);
  }
}

}  // namespace lamella::cuda
